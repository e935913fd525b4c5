"""Configurations that come whole: a file, or base64."""

import base64
import json
import pickle
import time
from pathlib import Path

import pytest

from envtune.errors import Refused
from envtune.settings import documents, loading, sources
from envtune.settings.documents import DocumentError
from envtune.settings.typed import Settings


def load(**environ: str) -> Settings:
    return loading.load(sources.with_documents(sources.read(environ=environ)))


def encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def test_a_json_file_a_yaml_file_and_base64_say_the_same(tmp_path: Path) -> None:
    wanted = {"learning_rate": 1e-5, "datasets": [{"path": "a", "type": "alpaca"}], "lora_r": 8}
    as_json, as_yaml = tmp_path / "c.json", tmp_path / "c.yaml"
    as_json.write_text(json.dumps(wanted))
    as_yaml.write_text(
        "learning_rate: 1e-05\ndatasets:\n  - path: a\n    type: alpaca\nlora_r: 8\n"
    )
    for environ in (
        {"SFT_TRAINER_CONFIG_JSON_PATH": str(as_json)},
        {"SFT_TRAINER_CONFIG_JSON_PATH": str(as_yaml)},
        {"SFT_TRAINER_CONFIG_JSON_ENV_VAR": encoded(wanted)},
    ):
        assert {k: s.value for k, s in load(**environ).axolotl.items()} == wanted


def test_a_file_behind_the_links_of_a_config_map_is_read(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "config.json").write_text('{"lora_r": 4}')
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "config.json").symlink_to("..data/config.json")
    path = str(tmp_path / "config.json")
    assert load(SFT_TRAINER_CONFIG_JSON_PATH=path).axolotl["lora_r"].value == 4


def test_file_is_weaker_than_base64_and_that_weaker_than_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"lora_r": 1, "lora_alpha": 1, "seed": 1}')
    found = load(
        SFT_TRAINER_CONFIG_JSON_PATH=str(path),
        SFT_TRAINER_CONFIG_JSON_ENV_VAR=encoded({"lora_alpha": 2, "seed": 2}),
        AXOLOTL_SEED="3",
    ).axolotl
    assert [found[key].value for key in ("lora_r", "lora_alpha", "seed")] == [1, 2, 3]
    assert [found[key].layer for key in ("lora_r", "lora_alpha", "seed")] == [
        "file",
        "base64",
        "AXOLOTL_",
    ]


def test_a_variable_reaches_into_what_a_file_gave(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"datasets": [{"path": "a", "type": "alpaca"}]}')
    found = load(SFT_TRAINER_CONFIG_JSON_PATH=str(path), AXOLOTL_DATASETS__0__PATH="b")
    assert found.axolotl["datasets"].value == [{"path": "b", "type": "alpaca"}]


def test_a_slip_in_a_file_is_refused_with_the_nearest_name_and_its_place(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"learnin_rate": 1, "lora_r": "many"}')
    with pytest.raises(Refused) as caught:
        load(SFT_TRAINER_CONFIG_JSON_PATH=str(path))
    lines = {str(problem) for problem in caught.value.problems}
    assert any("learnin_rate: no such setting; did you mean learning_rate?" in x for x in lines)
    assert any("lora_r: " in x and "a whole number" in x for x in lines)


BAD = [
    ('{"a": 1,\n "b": }', "line 2 column 7"),
    ('{"a": 1, "a": 2}', "a stands twice"),
    ("a: 1\nb: 2\na: 3\n", "a stands twice"),
    ("a: [1\n", "is not YAML at line 2"),
    ("a: &x [1]\nb: *x\n", "aliases"),
    ("a: !!python/object/apply:os.system [ls]\n", "is not YAML"),
    ("[1, 2]", "no object"),
    ("- 1\n", "no object"),
    ("", "no object"),
    ("[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_damaged_file_is_one_line_with_a_place(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / ("c.json" if text.startswith(("{", "[[")) else "c.yaml")
    path.write_text(text)
    with pytest.raises(DocumentError, match=message):
        documents.read_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not base64!", "is not base64"),
        (base64.b64encode(pickle.dumps({"lora_r": 1})).decode(), "is not UTF-8"),
        (base64.b64encode(b"lora_r: 1").decode(), "is not JSON at line 1 column 1"),
        (base64.b64encode(b"x" * (documents.LIMIT + 1)).decode(), "more than 1 MiB"),
    ],
)
def test_what_is_no_base64_json_is_one_line(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        documents.decode(text)


def test_a_huge_file_and_a_yaml_bomb_cost_nothing(tmp_path: Path) -> None:
    huge, bomb = tmp_path / "huge.json", tmp_path / "bomb.yaml"
    huge.write_bytes(b"[" + b"1," * 25_000_000)
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 12)]
    bomb.write_text("\n".join(lines))
    started = time.process_time()
    for path in (huge, bomb):
        with pytest.raises(DocumentError):
            documents.read_file(path)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "environ",
    [
        {"SFT_TRAINER_CONFIG_JSON_PATH": "/nowhere/c.json"},
        {"SFT_TRAINER_CONFIG_JSON_ENV_VAR": "%%"},
    ],
)
def test_the_variable_that_names_a_bad_document_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(Refused) as caught:
        load(**environ)
    assert [p.name for p in caught.value.problems] == list(environ)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": 1} // the end', {"a": 1}),
        ('{// one\n"a": "x // y", // two\n"b": "\\"//z"}', {"a": "x // y", "b": '"//z'}),
        ('{"url": "https://host/x"}', {"url": "https://host/x"}),
    ],
)
def test_comments_in_json_are_passed_over_and_told(
    text: str, values: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    found = documents.read_file(path)
    assert found.values == values
    assert ("comments" in "".join(found.notes)) == ("host" not in text)


def test_a_problem_behind_a_comment_keeps_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{// one\n"a": 1,\n"b": }')
    with pytest.raises(DocumentError, match="line 3 column 6"):
        documents.read_file(path)


def test_a_yaml_of_defaults_is_a_layer_and_a_jinja_template_is_not(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text("lora_r: 4\n")
    assert load(SFT_TEMPLATE=str(path)).axolotl["lora_r"].layer == "template"
    for text in ("lora_r: {{ lora_r }}\n", "{% for key in keys %}\n"):
        path.write_text(text)
        assert documents.read_defaults(path) is None
        assert not load(SFT_TEMPLATE=str(path)).axolotl


def test_the_two_files_of_the_industrial_pipeline_are_one_layer(tmp_path: Path) -> None:
    data, training = tmp_path / "data.json", tmp_path / "training.json"
    data.write_text('{"output_params": {"sequence_length": 64}}')
    training.write_text('{"lora_config": {"r": 4}}')
    paths = {"SFT_DATASET_CONFIG": str(data), "SFT_TRAINING_CONFIG": str(training)}
    found = load(**paths).axolotl
    assert (found["sequence_len"].value, found["lora_r"].value) == (64, 4)
    training.write_text('{"lora_config": {}, "training_params": {"max_seq_length": 32}}')
    with pytest.raises(Refused, match="SFT_DATASET_CONFIG: output_params"):
        load(**paths)
