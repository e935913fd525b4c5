"""What people do who come from RunPod's Axolotl pods, under the names that they know."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from envtune.reference import hub
from envtune.settings.own.profiles import PROFILES
from tests.harness import ROOT, Result, clean_environ, execute
from tests.unit.builders import load

SCRIPTS = ROOT / "scripts"
TEMPLATE = SCRIPTS / "config_template.yaml"
LOCAL = {
    "AXOLOTL_BASE_MODEL": "demo/tiny-llama",
    "AXOLOTL_DATASETS": '[{"path": "alpaca.jsonl", "type": "alpaca"}]',
    "SFT_DEVICE": "cpu",
}
AS_GPU = {**LOCAL, "SFT_DEVICE": "auto", "SFT_PRETEND_GPU": "rtx4090"}


@pytest.fixture
def place(embedded: Path, tmp_path: Path) -> Path:
    (tmp_path / "demo").symlink_to(embedded)
    (tmp_path / "alpaca.jsonl").write_text('{"instruction": "Say yes.", "output": "yes"}\n' * 40)
    return tmp_path


def _run(place: Path, *command: object, **environ: str) -> Result:
    return execute([str(word) for word in command], place, clean_environ(**environ))


# --- the files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "autorun.sh", "configure.py", "config_template.yaml", "start_vllm.sh",
        "vllm_config_example.yaml", "WELCOME",
    ],
)  # fmt: skip
def test_each_file_is_there_under_its_name(name: str) -> None:
    assert (SCRIPTS / name).is_file()
    assert os.access(SCRIPTS / name, os.X_OK) == name.endswith((".sh", ".py"))


def test_any_python_configures_from_the_template(place: Path) -> None:
    """Their page calls python3, which on a laptop is not that of the environment."""
    command = (
        "python3",
        SCRIPTS / "configure.py",
        "--template",
        TEMPLATE,
        "--output",
        "debug.yaml",
    )
    told = _run(place, *command, **LOCAL)
    assert told.code == 0, told.err
    made, template = (yaml.safe_load(file.read_text()) for file in (place / "debug.yaml", TEMPLATE))
    for key in template.keys() - {"base_model", "datasets"}:
        assert made[key] == template[key], key


def test_the_template_trains_what_it_says_where_nothing_else_is_set(place: Path) -> None:
    environ = {"SFT_TEMPLATE": str(TEMPLATE), "SFT_DEVICE": "cpu"}
    told = _run(place, sys.executable, "-m", "envtune", "check", **environ)
    assert told.code == 4, told.err  # offline here: all else has been found well
    assert "Llama-3.2-1B" in told.err


@pytest.mark.parametrize("kind", ["YAML", "variable"])
def test_the_output_dir_of_a_template_is_the_runs_and_told(kind: str, place: Path) -> None:
    text = yaml.safe_dump({"output_dir": "./outputs/mymodel", "sequence_len": 128})
    (place / "mine.yaml").write_text(text if kind == "YAML" else "sequence_len: 128\n")
    environ = {**LOCAL, "SFT_TEMPLATE": "mine.yaml"}
    if kind == "variable":
        environ["AXOLOTL_OUTPUT_DIR"] = "./outputs/mymodel"
    source = "SFT_TEMPLATE: output_dir" if kind == "YAML" else "AXOLOTL_OUTPUT_DIR"
    told = _run(place, sys.executable, SCRIPTS / "configure.py", **environ)
    assert told.out.strip() == str(place / "outputs" / "mymodel")
    line = f"inside the run folder, {place}/outputs/mymodel ({source})"
    assert line in told.err
    assert line in (place / "outputs" / "mymodel" / "config" / "axolotl.yaml").read_text()


def test_a_jinja_template_that_sets_it_is_told_what_to_set(place: Path) -> None:
    rest = "{% for k, v in values.items() if k != 'output_dir' %}{{ k | plain }}: {{ v.value }}\n{% endfor %}"
    (place / "mine.j2").write_text(f"output_dir: ./outputs/mymodel\n{rest}")
    told = _run(place, sys.executable, "-m", "envtune", "check", SFT_TEMPLATE="mine.j2", **LOCAL)
    assert told.code == 1
    assert told.said == [
        f"template {place}/mine.j2 loses or changes output_dir; AXOLOTL_OUTPUT_DIR names the run's folder"
    ]


# --- their tests, by their names -------------------------------------------------------------


def _minimal() -> dict[str, str]:
    return {**AS_GPU, **hub.TESTS["minimal_configuration_test"]}


@pytest.mark.parametrize("name", hub.TESTS)
def test_the_common_test_scenarios_are_valid_as_they_are_written(name: str, place: Path) -> None:
    told = _run(place, sys.executable, "-m", "envtune", "check", **AS_GPU, **hub.TESTS[name])
    assert told.code == 0, told.err
    for variable, value in hub.TESTS[name].items():
        row = f"{variable.removeprefix('AXOLOTL_').lower()} "
        (line,) = [line for line in told.out.splitlines() if line.startswith(row)]
        assert variable in line
        assert value.lower() in line.lower()


def test_minimal_configuration_test_is_the_profile_of_that_name() -> None:
    written = load(dict(hub.TESTS["minimal_configuration_test"]))
    for key, value in PROFILES["minimal"].items():
        assert written.axolotl[key].value == value


CHECKLIST = {
    "variables are properly prefixed": (
        {"AXOLOTL_LORA_ALHPA": "8"},
        "did you mean AXOLOTL_LORA_ALPHA?",
    ),
    "JSON configurations parse": ({"AXOLOTL_DATASETS": '[{"path": "demo"'}, "AXOLOTL_DATASETS: "),
    "required variables have validation": ({"AXOLOTL_BASE_MODEL": ""}, "AXOLOTL_BASE_MODEL"),
}


@pytest.mark.parametrize("case", CHECKLIST)
def test_the_pre_deployment_checklist(case: str, place: Path) -> None:
    wrong, said = CHECKLIST[case]
    told = _run(place, sys.executable, "-m", "envtune", "check", **{**_minimal(), **wrong})
    assert told.code == 1
    assert any(said in line for line in told.said), told.err


# --- the Hub's files -------------------------------------------------------------------------


def test_each_field_of_the_hubs_form_is_a_setting_that_may_stay_as_it_is(place: Path) -> None:
    form = json.loads((ROOT / ".runpod" / "hub.json").read_text())
    fields = {field["key"]: field["input"] for field in form["config"]["env"]}
    assert all(field["description"] and field["name"] for field in fields.values())
    defaults = {key: str(field["default"]) for key, field in fields.items()}
    kept = {
        key: value
        for key, value in defaults.items()
        if key not in ("AXOLOTL_BASE_MODEL", "AXOLOTL_DATASETS")
    }
    elsewhere = {"SFT_ON_FINISH": "exit", "SFT_ON_FAIL": "exit"}  # what a pod alone can
    told = _run(place, sys.executable, "-m", "envtune", "check", **{**kept, **AS_GPU, **elsewhere})
    assert told.code == 0, told.err
    for preset in form["config"]["presets"]:
        assert preset["defaults"].keys() <= fields.keys()
    chosen = [
        (key, option["value"])
        for key, field in fields.items()
        for option in field.get("options", ())
        if option["value"]
    ]
    assert len(chosen) > 20
    for key, value in chosen:
        load({key: value})  # raises where it is no value of that setting


def test_the_hubs_tests_start_as_a_pod_does() -> None:
    told = json.loads((ROOT / ".runpod" / "tests.json").read_text())
    assert [test["name"] for test in told["tests"]] == [*hub.TESTS]
    environ = {pair["key"]: pair["value"] for pair in told["config"]["env"]}
    settings = load(environ)
    assert settings.own["SFT_ON_FINISH"].value == "stop"
    assert settings.axolotl["max_steps"].value == 5


# --- start_vllm.sh ---------------------------------------------------------------------------


def _trained(place: Path) -> Path:
    """A folder that says it is a run; what lies in it does not matter before vLLM is looked for."""
    folder = place / "outputs" / "tiny-run1"
    (folder / "merged").mkdir(parents=True)
    record = {"name": "tiny-run1", "prefix": "tiny", "number": 1, "key": "k", "logs": str(place)}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def words(place: Path) -> Path:
    """A stand-in for `envtune` that writes down how it was called: for the script's own part."""
    script = '#!/bin/sh\nprintf "%s|" "$@"\n'
    (place / "scripts").mkdir()
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "bin" / "envtune").write_text(script)
    (place / ".venv" / "bin" / "envtune").chmod(0o755)
    (place / "scripts" / "start_vllm.sh").write_text((SCRIPTS / "start_vllm.sh").read_text())
    return place / "scripts" / "start_vllm.sh"


FLAGS = [
    (["c.yaml"], "serve|c.yaml|"),
    (["c.yaml", "--port", "8001"], "serve|c.yaml|SFT_SERVE_PORT=8001|"),
    (["c.yaml", "--max-model-len=64", "--enforce-eager"], "serve|c.yaml|SFT_SERVE_MAX_MODEL_LEN=64|SFT_SERVE_ENFORCE_EAGER=true|"),
    (["a run", "--enforce-eager", "--served-model-name", "a b"], "serve|a run|SFT_SERVE_ENFORCE_EAGER=true|SFT_SERVE_SERVED_MODEL_NAME=a b|"),
    (["r", "SFT_MERGE=true"], "serve|r|SFT_MERGE=true|"),
    (["r", "--override", '{"a": "x=y"}'], 'serve|r|SFT_SERVE_OVERRIDE={"a": "x=y"}|'),
]  # fmt: skip


@pytest.mark.parametrize(("given", "called"), FLAGS)
def test_flags_become_settings(given: list[str], called: str, words: Path, place: Path) -> None:
    assert _run(place, "bash", words, *given).out == called


def test_without_a_word_it_says_how_it_is_used(place: Path) -> None:
    told = _run(place, SCRIPTS / "start_vllm.sh")
    assert (told.code, told.out) == (1, "")
    assert "start_vllm.sh CONFIG.yaml" in told.err


CONFIGS = {
    "a flag that vLLM has dropped": (
        "swap_space: 16",
        "{file}: swap_space: vLLM {v} has no such flag",
    ),
    "a slip": (
        "max_model_lenn: 5",
        "{file}: max_model_lenn: vLLM {v} has no such flag; did you mean max_model_len?",
    ),
    "another model": (
        "model: acme/other",
        "{file}: model: acme/other is no run and in none; envtune serves",
    ),
    "a value of another type": ("port: many", "SFT_SERVE_PORT: 'many' is not allowed"),
    "a list": ("- a", "{file} holds no object of names and values"),
    "a name twice": ("port: 1\nport: 2", "port stands twice"),
    "a key": ("api_key: hunter2hunter2", "{file}: api_key: set VLLM_API_KEY, or"),
    "a run's whole model": ("model: outputs/tiny-run1/merged", ""),
    "a run by its adapter": ("lora_modules:\n- name: mine\n  path: outputs/tiny-run1/adapter", ""),
    "vLLM's own spelling": ("model: outputs/tiny-run1\nmax-model-len: 64", ""),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_file_of_flags_is_read_whole(case: str, place: Path) -> None:
    from envtune.settings import upstream

    text, said = CONFIGS[case]
    _trained(place)
    (place / "vllm.yaml").write_text(text)
    told = _run(place, SCRIPTS / "start_vllm.sh", "vllm.yaml")
    wanted = said.format(file="vllm.yaml", v=upstream.vllm()["version"])
    if said:
        assert told.code == 1, told.err
        assert any(wanted in line for line in told.said), told.err
    else:  # the run is found, and is not trained
        assert "tiny-run1" in told.err, told.err
    assert "hunter2" not in told.err
    assert "Traceback" not in told.err


def test_all_that_is_wrong_in_a_file_is_told_at_once(place: Path) -> None:
    (place / "vllm.yaml").write_text("swap_space: 1\nportt: 2\n")
    assert len(_run(place, SCRIPTS / "start_vllm.sh", "vllm.yaml").said) == 2


def test_the_example_is_of_flags_that_vllm_has(place: Path) -> None:
    example = (SCRIPTS / "vllm_config_example.yaml").read_text()
    lines = [
        line.removeprefix("# ")
        for line in example.splitlines()
        if ": " in line and "scripts/" not in line
    ]
    run = _trained(place)
    text = "\n".join(lines).replace("outputs/my-model-run1", str(run))
    assert len(yaml.safe_load(text)) > 5
    (place / "vllm.yaml").write_text(text)
    told = _run(place, SCRIPTS / "start_vllm.sh", "vllm.yaml")
    assert "tiny-run1" in told.err, told.err
    assert "no such flag" not in told.err
    assert "is not allowed" not in told.err


# --- the volume ------------------------------------------------------------------------------

MOUNTED = """
set -e
for part in {mounts}; do mkdir -p "{volume}/$part"; mount -t tmpfs none "{volume}/$part"; done
cd {volume}
exec {python} -c '
from envtune.machine import runpod, volumes
runpod.VOLUME = "{volume}"
print(volumes.base({environ}))'
"""
PARTS = [
    ("", "{volume}", {}),
    ("data", "{volume}/data", {}),
    ("data", "{volume}/data", {"RUNPOD_POD_ID": "pod"}),
    ("data/axolotl-artifacts", "{volume}/data/axolotl-artifacts", {"RUNPOD_POD_ID": "pod"}),
    (". data", "{volume}", {"RUNPOD_POD_ID": "pod"}),
]


@pytest.mark.parametrize(("mounts", "base", "environ"), PARTS)
def test_runs_go_where_a_volume_is(
    mounts: str, base: str, environ: dict[str, str], tmp_path: Path
) -> None:
    volume = tmp_path / "workspace"
    volume.mkdir()
    apart = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount here")
    shown = json.dumps(environ)  # in double quotes
    script = MOUNTED.format(mounts=mounts, volume=volume, python=sys.executable, environ=shown)
    told = _run(tmp_path, *apart, "bash", "-c", script)
    assert told.code == 0, told.err
    found = str(volume) if told.out.strip() == "." else told.out.strip()
    assert found == base.format(volume=volume)
