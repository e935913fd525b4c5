"""The generated reference: what is committed is what the tables say, and it is true."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from envtune.checks.doctor.table import AREAS, CODES
from envtune.errors import Exit, Refused
from envtune.failures.table import FAILURES
from envtune.reference import (
    dashboard,
    document,
    example,
    mappings,
    markdown,
    page,
    runpod,
    troubleshooting,
    words,
)
from envtune.reference.__main__ import FILES
from envtune.settings import axolotl_keys, dialects, loading, paths, runtime, sources, upstream
from envtune.settings.dialects.rules import Becomes
from envtune.settings.own import OWN, SERVE_FLAG
from envtune.settings.own.profiles import PROFILES
from envtune.watch.metrics import METRICS
from tests.harness import ROOT
from tests.unit.builders import MODEL_AND_DATA, load, of_settings

PAGE = page.text()
SWITCHED_OFF = re.findall(r"^#(\w+)=(.*)$", example.text(), re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_what_is_committed_is_what_the_tables_say(name: str) -> None:
    assert (ROOT / name).read_text() == FILES[name](), "run `make generate`"


def test_nothing_depends_on_the_machine(tmp_path: Path, dice: random.Random) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONHASHSEED": str(dice.randrange(2**32)),
        "LC_ALL": "C",
        "AXOLOTL_LORA_R": "99",
        "SFT_PROFILE": "debug",
        "FLAVOR": "cuda",
        "RUNPOD_POD_ID": "pod",
    }
    command = [sys.executable, "-m", "envtune.reference", str(tmp_path)]
    subprocess.run(command, env=environ, cwd=tmp_path, check=True)
    for name in FILES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), name


def test_everything_that_can_be_set_is_on_the_page() -> None:
    named = {
        *OWN, *PROFILES, *axolotl_keys.schema().fields, *runtime.RENAMED, *sources.SECRET_FILES,
        *upstream.axolotl()["reserved"], *dialects.flags(),
    }  # fmt: skip
    assert not {name for name in named if f"`{name}`" not in PAGE}


def test_every_code_and_every_failure_is_on_the_page_of_troubles() -> None:
    told = troubleshooting.text()
    assert not [code for code in Exit if f"\n| {int(code)} |" not in told]
    assert not [code for code in CODES if f"\n| `{code}` |" not in told]
    assert {code[2:5] for code in CODES} == set(AREAS)
    assert not [f.cause for f in FAILURES if f"\n| {markdown.cell(f.cause)} |" not in told]


def test_every_name_of_every_dialect_is_on_the_page() -> None:
    for dialect in dialects.DIALECTS:
        rows = [name.strip("`") for name, _ in mappings.rows(dialect.table)]
        wholes = tuple(row.removesuffix("*") for row in rows if row.endswith(".*"))
        assert not [n for n in dialect.table if n not in rows and not n.startswith(wholes or "?")]


def test_the_example_of_a_rule_shows_what_the_rule_makes() -> None:
    served = (SERVE_FLAG + flag.upper() for flag in upstream.vllm()["flags"])
    known = {*OWN, *axolotl_keys.schema().fields, *served}
    for dialect in dialects.DIALECTS:
        rows = dict(mappings.rows(dialect.table))
        made = [n for n, rule in dialect.table.items() if isinstance(rule, Becomes)]
        for cell in (rows[f"`{name}`"] for name in made if f"`{name}`" in rows):
            keys = re.findall(r"`([\w.]+)(?:: [^`]*)?`", cell.rpartition(" -> ")[2])
            assert keys, cell
            assert {key.split(".")[0] for key in keys} <= known, cell


def tables() -> Iterator[list[str]]:
    """The tables of the page, each as its lines."""
    yield from (block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE))


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    found = list(tables())
    assert len(found) > 15
    for lines in found:
        cells = {len(re.split(r"(?<!\\)\|", line)) for line in lines}
        assert len(cells) == 1, lines[0]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Short. And more.", "Short"),
        ("A share, e.g. 0.1 for ten percent. `x` is more.", "A share, e.g. 0.1 for ten percent"),
        ("One of *.pt, *.bin", "One of *.pt, *.bin"),
        ("word " * 60, "word " * 25 + "word ..."),
        ("", ""),
    ],
)
def test_a_description_is_cut_to_its_first_sentence(text: str, first: str) -> None:
    assert words.meaning({"description": text}) == first


def test_a_cell_ends_at_no_pipe_and_holds_no_markup_of_its_own() -> None:
    table = markdown.table([["a|b", "<tag>_<x_y> *.pt `<x> *`"]], "one", "two")
    assert table.splitlines()[-1] == "| a\\|b | &lt;tag>\\_&lt;x_y> \\*.pt `<x> *` |"


def docker_env(text: str) -> dict[str, str]:
    """The variables of a file as `docker run --env-file` reads it: nothing is unquoted."""
    lines = [li.lstrip() for li in text.splitlines() if li.strip() and not li.startswith("#")]
    found = dict(line.split("=", 1) for line in lines)
    assert not [name for name in found if not re.fullmatch(r"\w+", name)]
    return found


def test_the_example_of_an_environment_is_complete_as_it_is() -> None:
    environ = docker_env(example.text())
    assert environ.keys() == {"AXOLOTL_BASE_MODEL", "AXOLOTL_DATASETS"}
    assert not of_settings(load(environ))


@pytest.mark.parametrize(("name", "value"), SWITCHED_OFF, ids=[name for name, _ in SWITCHED_OFF])
def test_each_line_of_the_example_can_be_turned_on(name: str, value: str) -> None:
    line = f"#{name}={value}\n"
    assert line in example.text()
    loaded = load(docker_env(example.text().replace(line, line[1:])))
    key = name.removeprefix(sources.AXOLOTL).lower()
    assert not value or {name, key} & {*loaded.own, *loaded.axolotl}


def test_the_example_of_an_environment_has_every_setting_and_twenty_keys() -> None:
    named = {name for name, _ in SWITCHED_OFF}
    assert OWN.keys() <= named
    assert len({name for name in named if name.startswith(sources.AXOLOTL)}) == 20


DOCUMENTS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"base_model": "acme/tiny", "datasets": [{"path": "rows.jsonl", "type": "alpaca"}]}, True),
    ({"adapter": None, "learning_rate": 1, "bf16": "auto", "SFT_GRACE_SECONDS": 5}, True),
    ({"datasets": [{"path": "a", "type": {"field_output": "answer"}}], "seed": 3}, True),
    ({"FORCE_RUN_NAME": "my-model-run42", "special_tokens": {"pad_token": "<pad>"}}, True),
    ({"base_modl": "acme/tiny"}, False),
    ({"trl": {"beta_": 0.1}}, False),
    ({"datasets": [{"pth": "rows.jsonl"}]}, False),
    ({"lora_r": "many"}, False),
    ({"lora_r": 0}, False),
    ({"save_total_limit": 1}, True),
    ({"save_total_limit": -1}, False),
    ({"SFT_DEVICE": "tpu"}, False),
    ({"FORCE_RUN_NAME": "My Model"}, False),
]


@pytest.mark.parametrize(("given", "allowed"), DOCUMENTS)
def test_the_schema_says_of_a_document_what_envtune_says(
    tmp_path: Path, given: dict[str, Any], allowed: bool
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(given))
    inputs = sources.read((), {**MODEL_AND_DATA, "SFT_TRAINER_CONFIG_JSON_PATH": str(file)})
    try:
        loading.load(sources.with_documents(inputs))
        accepted = True
    except Refused:
        accepted = False
    validator = jsonschema.Draft202012Validator(document.schema())
    assert validator.is_valid(given) == accepted == allowed


def test_the_schema_is_one_of_its_draft_and_refers_to_nothing_that_is_not_there() -> None:
    schema = document.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    targets = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))
    assert targets
    assert set(targets) <= schema["$defs"].keys()


def test_what_only_the_environment_can_say_is_not_in_the_schema() -> None:
    properties = document.schema()["properties"]
    assert "SFT_PROFILE" not in properties
    assert "SFT_DEVICE" in properties


def test_the_pods_template_is_a_configuration_that_ends_its_pod() -> None:
    template = json.loads(runpod.text())
    given = load({**template["env"], "RUNPOD_POD_ID": "pod", "RUNPOD_API_KEY": "key-of-the-pod"})
    assert (given.get("SFT_ON_FINISH"), given.get("SFT_ON_FAIL")) == ("stop", "stop")
    assert not given.warnings
    assert not of_settings(given)
    assert template["ports"] == []
    outputs, _ = paths.folders(given.get, {"RUNPOD_POD_ID": "pod"})
    assert outputs.startswith(template["volumeMountPath"])


def test_the_dashboard_asks_for_every_metric_and_for_no_other() -> None:
    panels = dashboard.dashboard()["panels"]
    asked = [re.findall(r"envtune_\w+", panel["targets"][0]["expr"]) for panel in panels]
    assert asked == [[row.name] for row in METRICS]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(row.name.endswith("_total") == (row.kind == "counter") for row in METRICS)
