"""Prompts from the environment and from files: what is read, and what is refused in a line."""

import json
from pathlib import Path
from typing import Any

import pytest

from envtune.checks import lm_eval_tasks
from envtune.settings import paths, prompts
from tests.unit import builders
from tests.unit.builders import MODEL_AND_DATA, here, load, make_facts


def refused(environ: dict[str, str]) -> list[str]:
    """Every line that `check` would print."""
    full = {**MODEL_AND_DATA, **environ}
    given = builders.problems(full)
    if given:
        return given
    found = here(paths.located(load(full)), make_facts())
    return [str(problem) for problem in found]


FILES = {
    "a.json": '["Hello?", {"instruction": "Say it.", "language": "it", "max_sentences": 2}]',
    "b.json": '{"eval_prompts": ["Hello?", {"prompt": "Say it."}]}',
    "c.jsonl": '{"instruction": "Hello?"}\n\n{"instruction": "Say it."}\n',
    "d.yaml": "- Hello?\n- instruction: Say it.\n  language: en\n",
    "e.txt": "Hello?\n\n  Say it.\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_kind_holds_the_same_prompts(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    found = prompts.read(str(tmp_path / name))
    assert [prompt.instruction for prompt in found] == ["Hello?", "Say it."]


def test_a_prompt_becomes_a_chat_that_ends_before_the_answer() -> None:
    [plain, whole, chat] = prompts.read(
        [
            "Hello?",
            {"instruction": "Translate.", "input": "ciao", "system": "Be brief."},
            {"messages": [{"role": "user", "content": "A"}], "reference": ["B", "C"]},
        ]
    )
    assert plain.chat == [{"role": "user", "content": "Hello?"}]
    assert whole.chat == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Translate.\n\nciao"},
    ]
    assert (chat.chat, chat.references) == ([{"role": "user", "content": "A"}], ("B", "C"))


BROKEN = [
    ('["a", {"instruction": "b", "langage": "en"}]', "no such name here; did you mean language?"),
    ('[{"instruction": "b", "max_sentences": 0}]', "allowed: a whole number, e.g. 4 (>= 1"),
    ('[{"language": "en"}]', "prompt 1 needs one of instruction, prompt, messages, and has none"),
    ('[{"instruction": "a", "prompt": "b"}]', "has instruction and prompt"),
    ('[{"instruction": "a", "language": "klingon"}]', "asks for the language 'klingon'"),
    ('[{"messages": [{"role": "assistant", "content": "a"}]}]', "a user's has to be the last"),
    ('[{"messages": [{"role": "user", "content": "a"}], "system": "b"}]', "put system and input"),
    ('[{"instruction": "a", "reference": "b", "references": ["c"]}]', "choose one of the two"),
]


@pytest.mark.parametrize(("text", "told"), BROKEN)
@pytest.mark.parametrize("in_file", [False, True], ids=["variable", "file"])
def test_a_broken_prompt_is_one_line(text: str, told: str, in_file: bool, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    given = str(tmp_path / "p.json") if in_file else text
    [line] = refused({"SFT_EVAL_PROMPTS": given})
    assert line.startswith("SFT_EVAL_PROMPTS: ")
    assert told in line


FILES_REFUSED: list[tuple[str, str | None, str]] = [
    ("gone.json", None, "gone.json is not there; a prompt itself goes into a list: "),
    ("p.json", "[1,", "p.json is not JSON at line 1 column 4"),
    ("p.json", '{"a": 1, "b": 2}', "p.json holds no list of prompts"),
    ("p.json", "[]", "holds no prompt"),
    ("p.jsonl", '"a"\n{"instruction": ', "p.jsonl:2 is not JSON"),
    ("p.yaml", "- a\n- b: [", "p.yaml is not YAML"),
]


@pytest.mark.parametrize(("name", "text", "told"), FILES_REFUSED)
def test_a_broken_file_is_refused_before_anything_trains(
    name: str, text: str | None, told: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    [line] = refused({"SFT_EVAL_PROMPTS": str(tmp_path / name)})
    assert told in line


def test_every_pair_has_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "reference": "b"}\n{"prompt": "c"}\n')
    assert refused({"SFT_EVAL_PAIRS": str(path)}) == [
        f"SFT_EVAL_PAIRS: {path}: prompt 2 has no reference to score its answer by"
    ]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"SFT_EVAL_GENERATION": '{"temperature": -1}'}, "SFT_EVAL_GENERATION: -1"),
        ({"SFT_EVAL_GENERATION": '{"temprature": 1}'}, "did you mean temperature?"),
        ({"SFT_EVAL_GENERATION": '{"top_p": 1.5}'}, "allowed: a number, e.g. 0.0002 or 2e-4 (> 0, <= 1)"),
        ({"SFT_EVAL_TASKS": "arc_eazy"}, "'arc_eazy' is no task of lm_eval; did you mean arc_easy?"),
        ({"SFT_EVAL_TASKS": "arc_easy", "SFT_EVAL_TASKS_LIMIT": "0"}, "SFT_EVAL_TASKS_LIMIT: '0' is not allowed"),
        ({"SFT_EVAL_TASKS_PATH": "/nowhere/tasks"}, "SFT_EVAL_TASKS_PATH: /nowhere/tasks is not a folder"),
        ({"SFT_EVAL_DATASET": "/nowhere/rows.jsonl"}, "SFT_EVAL_DATASET: /nowhere/rows.jsonl is not there"),
        ({"SFT_EVALUATE": "true"}, "SFT_EVALUATE: has nothing to measure; set SFT_EVAL_PROMPTS"),
    ],
)  # fmt: skip
def test_what_an_evaluation_cannot_have_is_one_line(environ: dict[str, str], told: str) -> None:
    [line] = refused(environ)
    assert told in line


@pytest.mark.parametrize(
    "environ",
    [
        {"SFT_EVALUATE": "true", "AXOLOTL_VAL_SET_SIZE": "0.1"},
        {"SFT_EVALUATE": "true", "SFT_EVAL_PROMPTS": '["Hello?"]'},
        {"SFT_EVALUATE": "false", "SFT_EVAL_PROMPTS": '["Hello?"]'},
        {"SFT_EVAL_TASKS": "arc_easy,hellaswag"},
        {"SFT_EVAL_GENERATION": '{"max_new_tokens": 64, "temperature": 0.7, "top_p": 0.9}'},
    ],
    ids=str,
)
def test_what_an_evaluation_can_have_is_not_refused(environ: dict[str, str]) -> None:
    assert not refused(environ)


def test_tasks_of_ones_own_count_however_their_names_are_written(tmp_path: Path) -> None:
    own: dict[str, Any] = {
        "one.yaml": "task: mine\ntag: [ours, theirs]\n",
        "two.yaml": '"task": "quoted"\ntag:\n  - listed\n  - "and quoted"\n',
        "_base": "group: based  # a comment\n",
        "code.py": "task: not_me\n",
    }
    for name, text in own.items():
        (tmp_path / name).write_text(text)
    found = lm_eval_tasks.names(tmp_path) - lm_eval_tasks.names()
    assert found == {"mine", "ours", "theirs", "quoted", "listed", "and quoted", "based"}
    environ = {"SFT_EVAL_TASKS": json.dumps(["mine"]), "SFT_EVAL_TASKS_PATH": str(tmp_path)}
    assert not refused(environ)
