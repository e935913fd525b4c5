"""scripts/autorun.sh as users meet it before anything trains: words, exit codes, logins."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.harness import (
    AUTORUN,
    NOWHERE,
    ROOT,
    Entrypoint,
    Quiet,
    clean_environ,
    envtune,
    execute,
    serving,
)

CANARY = "hf_CaNaRy0123456789"


@pytest.fixture
def empty(tmp_path: Path) -> Entrypoint:
    return Entrypoint(tmp_path, {})


def _refusals(error: str) -> list[str]:
    """The lines that name a problem, without time and level."""
    return [line for line in error.splitlines() if " INFO " not in line]


def test_with_nothing_set_ten_lines_tell_what_to_set(empty: Entrypoint) -> None:
    result = empty.run()
    assert result.code == 1
    lines = result.err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("envtune trains what the environment says, and nothing is set")
    assert "AXOLOTL_BASE_MODEL" in lines[1]
    assert "export AXOLOTL_BASE_MODEL=" in lines[4]
    assert "README" in lines[9]
    assert not list(empty.folder.iterdir())


def test_another_command_runs_untouched(empty: Entrypoint) -> None:
    result = empty.run("bash", "-c", 'printf "%s|" "$0" "$@"; exit 7', "a b", "*", "")
    assert (result.code, result.out, result.err) == (7, "a b|*||", "")


def test_idle_stays_until_it_is_stopped(empty: Entrypoint) -> None:
    start = empty.start("idle")
    start.until(lambda: any(b"sleep\0infinity" in line for line in start.commands().values()))
    assert start.process.poll() is None
    start.signal()
    assert start.wait().code == 143
    assert not start.left_over()


def test_the_script_can_be_sourced_without_running(empty: Entrypoint) -> None:
    script = f"source {AUTORUN}; declare -F main login configure check idle"
    result = execute(["bash", "-c", script], empty.folder, clean_environ())
    assert result.code == 0
    assert result.out.split() == ["main", "login", "configure", "check", "idle"]


def test_the_script_stays_a_door() -> None:
    lines = AUTORUN.read_text().splitlines()
    assert len(lines) <= 120
    assert "set -Eeuo pipefail" in lines
    assert "huggingface-cli" not in AUTORUN.read_text()


# --- what is missing or unusable: one line each, before Axolotl -------------------------


def _good(embedded: Path) -> dict[str, str]:
    return {
        "AXOLOTL_BASE_MODEL": str(embedded / "tiny-llama"),
        "AXOLOTL_DATASETS__0__PATH": str(embedded / "instructions.jsonl"),
    }


# fmt: off
BAD = [
    pytest.param({"AXOLOTL_BASE_MODEL": None}, 1, "AXOLOTL_BASE_MODEL: is not set", id="no model"),
    pytest.param({"AXOLOTL_DATASETS__0__PATH": None}, 1, "AXOLOTL_DATASETS: is not set", id="no data"),
    pytest.param({"AXOLOTL_BASE_MODEL": "/no/such/model"}, 4, "/no/such/model is not there", id="model gone"),
    pytest.param({"AXOLOTL_BASE_MODEL": "{tmp}"}, 4, "no config.json", id="model empty"),
    pytest.param({"AXOLOTL_DATASETS__0__PATH": "gone.jsonl"}, 3, "gone.jsonl is not there", id="data gone"),
    pytest.param({"AXOLOTL_DATASETS__0__PATH": "{tmp}/empty.jsonl"}, 3, "empty.jsonl is empty", id="data empty"),
    pytest.param({"AXOLOTL_DATASETS__0__PATH": "{tmp}/broken.jsonl"}, 3, "broken.jsonl:1: not JSON", id="data broken"),
    pytest.param({"AXOLOTL_DATASETS__0__PATH": "{tmp}/latin.jsonl"}, 3, "not UTF-8", id="data latin"),
    pytest.param({"AXOLOTL_DATASETS__0__PATH": "{tmp}/odd.jsonl"}, 3, "do not tell it", id="data untyped"),
    pytest.param({"SFT_OUTPUTS_DIR": "/proc/outputs"}, 1, "/proc/outputs cannot be written", id="outputs"),
    pytest.param({"SFT_OUTPUTS_DIR": "{tmp}/empty.jsonl"}, 1, "is a file", id="outputs file"),
    pytest.param({"AXOLOTL_BF16": "true"}, 1, "AXOLOTL_BF16: True needs a GPU", id="bf16 on cpu"),
    pytest.param({"SFT_DEVICE": "cuda"}, 1, "no GPU is visible", id="no gpu"),
    pytest.param({"FLAVOR": "cuda"}, 1, "SFT_DEVICE=cpu", id="cuda image"),
    pytest.param({"AXOLOTL_LEARNIN_RATE": "1"}, 1, "did you mean AXOLOTL_LEARNING_RATE?", id="typo"),
    pytest.param({"AXOLOTL_LEARNING_RATE": "fast"}, 1, "'fast' is not allowed; allowed: a number", id="type"),
    pytest.param({"FORCE_RUN_NAME": "My Run"}, 1, "FORCE_RUN_NAME: 'My Run'", id="name"),
]
# fmt: on


@pytest.mark.parametrize(("change", "code", "message"), BAD)
def test_one_line_says_what_is_wrong_and_nothing_is_written(
    change: dict[str, str | None], code: int, message: str, embedded: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "empty.jsonl").touch()
    (given / "broken.jsonl").write_text("hello\n")
    (given / "latin.jsonl").write_bytes('{"text": "é"}\n'.encode("latin-1"))
    (given / "odd.jsonl").write_text('{"a": 1}\n')
    settings = {k: v for k, v in (_good(embedded) | change).items() if v is not None}
    settings = {k: v.replace("{tmp}", str(given)) for k, v in settings.items()}
    folder = tmp_path / "work"
    folder.mkdir()
    result = Entrypoint(folder, settings).run(TERMINATION_LOG_FILE=str(tmp_path / "message"))
    assert result.code == code, result.err
    refusals = _refusals(result.err)
    assert len(refusals) == 1, result.err
    assert message in refusals[0]
    assert message in (tmp_path / "message").read_text()
    assert "Traceback" not in result.err
    assert not list(folder.iterdir())


def test_a_file_without_permission_is_a_data_error(embedded: Path, tmp_path: Path) -> None:
    """root may read everything, so the capability that lets it is dropped first."""
    data = tmp_path / "secret.jsonl"
    shutil.copy(embedded / "instructions.jsonl", data)
    data.chmod(0)
    settings = _good(embedded) | {"AXOLOTL_DATASETS__0__PATH": str(data)}
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    prefix = drop if os.getuid() == 0 else []
    result = execute([*prefix, str(AUTORUN)], tmp_path, clean_environ(**settings))
    assert result.code == 3, result.err
    assert "secret.jsonl cannot be read: Permission denied" in result.err


def test_every_problem_is_told_at_once(empty: Entrypoint) -> None:
    result = empty.run(
        AXOLOTL_LEARNIN_RATE="1", AXOLOTL_BF16="maybe", AXOLOTL_NUM_EPOCHS="x", SFT_RERUNN="1"
    )
    assert result.code == 1
    for name in ("AXOLOTL_LEARNIN_RATE", "AXOLOTL_BF16", "AXOLOTL_NUM_EPOCHS", "SFT_RERUNN"):
        assert f"{name}: " in result.err


# --- logins -----------------------------------------------------------------------------


class Hub(Quiet):
    """A stand-in for the Hub's whoami, which cannot be reached from a test."""

    seen: list[str]

    def do_GET(self) -> None:
        type(self).seen.append(self.path)
        good = self.headers.get("Authorization") == f"Bearer {CANARY}"
        body = json.dumps({"name": "ada"} if good else {"error": "Invalid token"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.seen = []
    with serving(Hub) as url:
        yield url


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_a_good_token_is_told_by_its_owner(name: str, hub: str, tmp_path: Path) -> None:
    environ = clean_environ(HF_ENDPOINT=hub, HF_HUB_OFFLINE="0", **{name: CANARY})
    result = envtune("login", cwd=tmp_path, environ=environ)
    assert result.code == 0
    assert "Hugging Face: logged in as ada" in result.err
    assert CANARY not in result.err + result.out
    assert Hub.seen == ["/api/whoami-v2"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "no token (HF_TOKEN is not set)"),
        ({"HF_TOKEN": "hf_wrong"}, "the token was refused by"),
        ({"HF_TOKEN": CANARY, "HF_ENDPOINT": NOWHERE}, "no network"),
        ({"HF_TOKEN": CANARY, "HF_HUB_OFFLINE": "1"}, "offline"),
    ],
    ids=["no token", "refused", "no network", "offline"],
)
def test_a_login_that_fails_says_why_and_stops_nothing(
    settings: dict[str, str], sentence: str, hub: str, tmp_path: Path
) -> None:
    environ = clean_environ(**{"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", **settings})
    result = envtune("login", cwd=tmp_path, environ=environ)
    assert result.code == 0
    assert sentence in result.err
    assert len([line for line in result.lines if "Hugging Face" in line]) == 1
    assert CANARY not in result.err + result.out


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "W&B: off (WANDB_API_KEY is not set)"),
        ({"WANDB_MODE": "offline"}, "W&B: offline"),
        ({"WANDB_API_KEY": CANARY}, "W&B: on"),
        ({"WANDB_API_KEY": CANARY, "WANDB_MODE": "disabled"}, "W&B: off (WANDB_MODE=disabled)"),
    ],
    ids=["no key", "offline", "key", "disabled"],
)
def test_wandb_is_told_in_one_line(settings: dict[str, str], sentence: str, tmp_path: Path) -> None:
    result = envtune("login", cwd=tmp_path, environ=clean_environ(**settings))
    assert result.code == 0
    assert sentence in result.err
    assert CANARY not in result.err + result.out


def test_a_token_from_a_file_works_and_shows_nowhere(hub: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{CANARY}\n")
    environ = clean_environ(
        HF_ENDPOINT=hub, HF_HUB_OFFLINE="0", HF_TOKEN_FILE=str(tmp_path / "token")
    )
    result = envtune("login", cwd=tmp_path, environ=environ)
    assert "logged in as ada" in result.err
    assert CANARY not in result.err + result.out


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"HF_TOKEN_FILE": "/none"}, "HF_TOKEN_FILE: /none cannot be read: No such file"),
        ({"HF_TOKEN_FILE": "/x", "HF_TOKEN": CANARY}, "HF_TOKEN_FILE: is set and so is HF_TOKEN"),
    ],
)
def test_a_secret_that_cannot_be_told_is_refused(
    settings: dict[str, str], line: str, empty: Entrypoint
) -> None:
    result = empty.run(**settings)
    assert result.code == 1
    assert line in result.err
    assert CANARY not in result.err


def test_a_secret_in_a_wrong_place_is_refused_and_not_shown(empty: Entrypoint) -> None:
    result = empty.run(HF_TOKEN=CANARY, AXOLOTL_LORA_R=CANARY, AXOLOTL_HUB_TOKEN=CANARY)
    assert result.code == 1
    assert "AXOLOTL_LORA_R" in result.err
    assert CANARY not in result.err


def test_wrong_usage_is_exit_1_with_a_last_word(empty: Entrypoint) -> None:
    message = empty.folder / "message"
    result = empty.run("envtune", "print-runtime", "--bogus", TERMINATION_LOG_FILE=str(message))
    assert result.code == 1
    assert "--bogus" in message.read_text()


# --- configure.py and the verbs that create nothing -------------------------------------


def _configure(folder: Path, settings: dict[str, str], *arguments: str) -> "tuple[int, str, str]":
    argv = [str(ROOT / ".venv/bin/python"), str(ROOT / "scripts/configure.py"), *arguments]
    result = execute(argv, folder, clean_environ(**settings))
    return result.code, result.out, result.err


def test_configure_writes_a_yaml_that_explains_itself(embedded: Path, tmp_path: Path) -> None:
    code, _, error = _configure(tmp_path, _good(embedded), "--output", "out/config.yaml")
    assert code == 0, error
    text = (tmp_path / "out/config.yaml").read_text()
    assert text.startswith("# What Axolotl 0.19.0 trains")
    assert "# AXOLOTL_BASE_MODEL" in text
    for line in text.splitlines():
        if line and not line.startswith(("#", " ")):
            assert "  # " in line, f"no source beside {line}"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_configure_checks_without_writing(embedded: Path, tmp_path: Path) -> None:
    code, out, _ = _configure(tmp_path, _good(embedded), "--check")
    assert (code, out) == (0, "")
    assert not list(tmp_path.iterdir())


def test_configure_takes_a_template_of_the_users(embedded: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text(
        "# mine\n{% for key, v in values.items() %}{{ key | plain }}: {{ v.value }}\n{% endfor %}"
    )
    code, _, error = _configure(
        tmp_path, _good(embedded), "--template", str(template), "--output", "config.yaml"
    )
    assert code == 0, error
    text = (tmp_path / "config.yaml").read_text()
    assert text.startswith("# mine\n")
    assert yaml.safe_load(text)["lora_r"] == 16


def test_the_defaults_are_printed_with_their_reasons(embedded: Path, tmp_path: Path) -> None:
    result = envtune("check", cwd=tmp_path, environ=clean_environ(**_good(embedded)))
    assert result.code == 0
    rows = {line.split()[0]: line for line in result.out.splitlines()[2:]}
    for key, value in {
        "adapter": "lora",
        "lora_r": "16",
        "lora_target_linear": "true",
        "learning_rate": "0.0002",
        "num_epochs": "3",
        "sequence_len": "512",
        "seed": "42",
        "bf16": "false",
        "sample_packing": "false",
    }.items():
        assert rows[key].split()[1] == value
        assert "envtune: " in rows[key]
    assert "4 micro x 4 accumulation x 1 world = 16 global" in rows["batch"]


def test_the_preview_and_the_runtime_create_nothing(embedded: Path, tmp_path: Path) -> None:
    environ = clean_environ(**_good(embedded), FORCE_RUN_INDEX="12")
    name = envtune("run-name-preview", cwd=tmp_path, environ=environ)
    assert name.out == "tiny-llama-instructions-full-run12\n"
    as_json = envtune("print-runtime", "--format", "json", cwd=tmp_path, environ=environ)
    as_env = envtune("print-runtime", "--format", "env", cwd=tmp_path, environ=environ)
    values = json.loads(as_json.out)
    assert values["RUN_NAME"] == "tiny-llama-instructions-full-run12"
    assert values["RUN_NUMBER"] == "12"
    assert values["RUN_OUTPUTS_DIR"] == str(tmp_path / "outputs" / values["RUN_NAME"])
    shell = execute(
        ["bash", "-c", f'{as_env.out}\nprintf %s "$RUN_OUTPUTS_DIR"'], tmp_path, environ
    )
    assert shell.out == values["RUN_OUTPUTS_DIR"]
    assert not list(tmp_path.iterdir())


def test_overrides_on_the_command_line_win(embedded: Path, tmp_path: Path) -> None:
    environ = clean_environ(**_good(embedded), AXOLOTL_LORA_R="8", FORCE_RUN_INDEX="3")
    result = envtune("run-name-preview", "FORCE_RUN_INDEX=5", cwd=tmp_path, environ=environ)
    assert result.out.strip().endswith("-run5")


def test_a_pod_keeps_its_runs_on_the_volume(embedded: Path, tmp_path: Path) -> None:
    environ = clean_environ(**_good(embedded), RUNPOD_POD_ID="abc")
    result = envtune("print-runtime", cwd=tmp_path, environ=environ)
    if result.code == 0:
        assert json.loads(result.out)["RUN_OUTPUTS_DIR"].startswith("/workspace/outputs/")
    else:
        assert "/workspace/outputs cannot be written" in result.err


def test_a_mounted_file_configures_as_variables_do(embedded: Path, tmp_path: Path) -> None:
    given = _good(embedded)
    mounted = {
        "base_model": given["AXOLOTL_BASE_MODEL"],
        "datasets": [{"path": given["AXOLOTL_DATASETS__0__PATH"]}],
    }
    (tmp_path / "config.json").write_text(json.dumps(mounted))
    variable = {"SFT_TRAINER_CONFIG_JSON_PATH": "config.json"}
    for name, settings in (("a.yaml", given), ("b.yaml", variable)):
        code, _, error = _configure(tmp_path, settings, "--output", name)
        assert code == 0, error
    first, second = (yaml.safe_load((tmp_path / n).read_text()) for n in ("a.yaml", "b.yaml"))
    assert first == second


def test_explain_tells_the_source_and_what_it_overrode(embedded: Path, tmp_path: Path) -> None:
    environ = clean_environ(**_good(embedded), AXOLOTL_SEQUENCE_LEN="64")
    result = envtune(
        "explain", "sequence_len", "AXOLOTL_SEQUENCE_LEN=96", cwd=tmp_path, environ=environ
    )
    assert result.code == 0, result.err
    assert "value     96" in result.out
    assert "overrode  64 (AXOLOTL_SEQUENCE_LEN, AXOLOTL_)" in result.out
    assert "takes     a whole number, e.g. 4 (>= 1)" in result.out
    assert "maximum length" in result.out
