"""What goes into the YAML comes out of it, whatever it is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from envtune.errors import Refused
from envtune.render import yaml_files
from envtune.resolve.config import RunConfig, Value
from envtune.supervise import templates
from tests.unit.builders import AMPERE, make_facts, resolved, run_config

NASTY = [
    "", " ", "  leading", "trailing  ", "'", '"', "'single' \"double\"", "\\", "\\n", "a\nb",
    "a\n\n  b\n", "\n", "\n\nx", "x\n\n", "line\n# no comment", "a # b", "#", ": ", "a: b", "- a",
    "{{ x }}", "{% raw %}", "{# c #}", "{a: b}", "[a]", "&a", "*a", "!!python/object:os.system x",
    "|", ">", "%", "@", "`", "?", "-", "---", "...", "... # x", "--- a", "1e-05", "1e5", "0x10",
    "010", "1_000", "1.0", ".5", "12:30:45", "2024-01-01", "yes", "No", "on", "true", "null",
    "~", "NaN", ".nan", ".inf", "=", "<<", "ünï", "日本語", "😀", "\u2028", pytest.param("\u0085x"),
    "\ufeffx",
    "\t", "\ta", "a\tb", "\r\n", "a\r", "\x1b[31m", "\x7f", "\udcff", "x" * 5000,
    "word " * 5000, "a\n" * 500, "é" * 3000, "x...\n", "'" * 100,
]  # fmt: skip
SCALARS: list[Any] = [None, True, False, 0, 1, -1, 1.0, 0.0, 1e-05, 2e-4, 1e300, 1e-300, 0.1 + 0.2, 10**30,
           [], {}, [[]], [{}], {"a": []}, [None], [1, 1.0, True], {"a": None}]  # fmt: skip


def shown(value: Any) -> str:
    return repr(value)[:40]


@pytest.mark.parametrize("text", [*NASTY, *SCALARS], ids=shown)
def test_a_value_survives_in_every_place(text: Any) -> None:
    name = text if isinstance(text, str) else "name"
    config = run_config(
        {
            "wandb_name": text,
            "plugins": [text, "plain", text],
            "datasets": [{"path": text, "type": {"format": text}, "data_files": [text, text]}],
            "special_tokens": {name: text, "b": [{name: [text]}]},
        }
    )
    config = copy_of(config)
    assert repr(yaml.safe_load(templates.render_axolotl(config))) == repr(config.plain())


def copy_of(config: RunConfig) -> RunConfig:
    """The same with no object in two places, as JSON would give it."""
    plain = {key: json.loads(json.dumps(value)) for key, value in config.plain().items()}
    return replace(config, axolotl={key: Value(value, key) for key, value in plain.items()})


def test_the_longest_value_that_a_variable_can_hold_survives() -> None:
    config = run_config({"default_system_message": "word: # " * (2**17 // 8)})
    assert yaml.safe_load(templates.render_axolotl(config)) == config.plain()


def test_two_data_sets_of_one_kind_are_written_out_twice() -> None:
    datasets = '[{"path": "a"}, {"path": "b"}]'
    facts = make_facts(columns=[("conversations",)] * 2)
    text = templates.render_axolotl(resolved({"AXOLOTL_DATASETS": datasets}, facts))
    assert "&id" not in text


def test_nothing_outside_a_value_is_changed_by_it() -> None:
    config = run_config({"wandb_name": "x\nlearning_rate: 1\n#"})
    assert list(yaml.safe_load(templates.render_axolotl(config))) == list(config.axolotl)


def test_the_same_configuration_gives_the_same_bytes() -> None:
    texts = {templates.render_axolotl(resolved(facts=make_facts(AMPERE))) for _ in range(3)}
    assert len(texts) == 1


def test_a_comment_tells_the_source_of_each_value() -> None:
    config = resolved({"AXOLOTL_LORA_R": "8"})
    lines = templates.render_axolotl(config).splitlines()
    for key, value in config.axolotl.items():
        [line] = [line for line in lines if line.startswith(f"{key}:")]
        assert f"  # {value.source}" in line
        assert line.endswith(value.reason or value.source)


@pytest.mark.parametrize("text", ["a\nlearning_rate: 9", "a\r\nb: 1", "a\u2028b: 1", "a\x85b: 1"])
def test_a_source_or_reason_stays_in_its_comment(text: str) -> None:
    config = replace(run_config(), axolotl={"seed": Value(1, text, text), "a": Value([1], text)})
    assert yaml.safe_load(templates.render_axolotl(config)) == {"seed": 1, "a": [1]}


def with_template(tmp_path: Path, text: str, axolotl: dict[str, Any]) -> str:
    template = tmp_path / "mine.yaml.j2"
    template.write_text(text)
    config = replace(run_config(), axolotl={k: Value(v, "") for k, v in axolotl.items()})
    return yaml_files.lay_out(config.axolotl, template)


ALL = "{% for key, value in values.items() %}{{ key | plain }}: {{ value.value }}\n{% endfor %}"


def test_a_users_template_lays_out_as_it_likes(tmp_path: Path) -> None:
    text = with_template(tmp_path, "# mine\n" + ALL, {"seed": 1, "datasets": [{"path": "a: b"}]})
    assert text == "# mine\nseed: 1\ndatasets: [{path: 'a: b'}]\n"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("lora_r: {{ values.lora_r.value }}", "seed"),
        (ALL + "seed: 2", "seed"),
        (ALL + "seed: 1.0", "seed"),
        (ALL + "seed: '1'", "seed"),
        (ALL + "lora_r: true", "lora_r"),
        (ALL + "extra: 1", "extra"),
        (ALL + "seed: {{ values.bf16.value }}", "seed"),
        ("seed: {{ values.seed.value }}\nlora_r: 1", "bf16"),
        ("", "seed"),
        ("- a", "seed"),
        ("just text", "seed"),
        (ALL + "x: [", "does not make YAML"),
        (ALL + "{{ values.no_such.value }}", "no_such"),
        (ALL + "{% if %}", "line "),
        (ALL + "{{ values.clear() }}", "line "),
        *(
            pytest.param(
                ALL + end, "template",
            )
            for end in ("{{ 1 // 0 }}", "{{ none + 1 }}", "bf16: 2024-13-45")
        ),
        (ALL + "{{ ''.__class__.__mro__ }}", "template"),
    ],
)  # fmt: skip
def test_a_template_that_changes_or_breaks_a_value_is_refused(
    tmp_path: Path, template: str, told: str
) -> None:
    with pytest.raises(Refused, match=r"mine\.yaml\.j2") as caught:
        with_template(tmp_path, template, {"seed": 1, "lora_r": 1, "bf16": True})
    assert told in str(caught.value)


def test_a_template_that_changes_what_is_inside_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="datasets"):
        with_template(
            tmp_path, "datasets: [{path: a, x: 1.0}]", {"datasets": [{"path": "a", "x": 1}]}
        )


def test_a_template_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        yaml_files.lay_out(run_config().axolotl, tmp_path / "none.j2")


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.j2").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(Refused, match="cannot be read"):
        yaml_files.lay_out(run_config().axolotl, tmp_path / "bytes.j2")


@pytest.mark.parametrize(("device", "on_cpu"), [("cpu", True), ("cuda", False)])
def test_the_launcher_is_told_one_process_and_the_device(device: str, on_cpu: bool) -> None:
    made = yaml.safe_load(yaml_files.render_accelerate(replace(run_config(), device=device)))
    assert made["use_cpu"] is on_cpu
    assert made["num_processes"] == made["num_machines"] == 1
    assert (made["distributed_type"], made["mixed_precision"]) == ("NO", "no")
