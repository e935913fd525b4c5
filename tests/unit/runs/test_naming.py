"""The names of runs, as tables."""

import re
from datetime import datetime
from typing import Any

import pytest

from envtune.errors import Refused
from envtune.runs import naming
from tests.unit import builders
from tests.unit.builders import run_config

NOW = datetime(2026, 1, 2, 3, 4, 5)
LONG = "x" * 200


def named(existing: tuple[str, ...] = (), **own: Any) -> naming.RunName:
    return naming.next_name(run_config(**own), existing, NOW)


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Llama-3.2-1B", "llama-3-2-1b"),
        ("a__b  c", "a-b-c"),
        ("-Ünïcode-", "n-code"),
        ("a/b", "a-b"),
        ("{{ x }}", "x"),
        ("$(rm -rf)", "rm-rf"),
        ("...", "fallback"),
        ("", "fallback"),
        ("日本", "fallback"),
        ("x" * 64, "x" * 64),
    ],
)
def test_a_slug_holds_only_small_letters_digits_and_hyphens(text: str, slug: str) -> None:
    assert naming.slug(text, "fallback") == slug


@pytest.mark.parametrize("text", ["x" * 65, "x" * 58 + "-" * 5 + "y" * 20, "ab-" * 40])
def test_a_long_segment_is_cut_with_four_characters_of_a_hash(text: str) -> None:
    slug = naming.slug(text, "")
    assert len(slug) <= 64
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{4}", slug)


def test_two_long_segments_with_the_same_start_get_different_names() -> None:
    assert naming.slug(LONG + "a", "") != naming.slug(LONG + "b", "")


@pytest.mark.parametrize(
    ("axolotl", "parts"),
    [
        ({}, ("tiny-llama", "rows", "full")),
        ({"base_model": "/models/Qwen/"}, ("qwen", "rows", "full")),
        ({"base_model": "gpt2"}, ("gpt2", "rows", "full")),
        ({"datasets": [{"path": "/data/My Rows.jsonl"}]}, ("tiny-llama", "my-rows", "full")),
        ({"datasets": [{"path": "a/rows.json.gz"}]}, ("tiny-llama", "rows", "full")),
        ({"datasets": [{"path": "a/v1.5"}]}, ("tiny-llama", "v1-5", "full")),
        ({"datasets": [{"path": "a", "split": "train[:1000]"}]}, ("tiny-llama", "a", "n1000")),
        ({"datasets": [{"path": "a", "split": "train"}]}, ("tiny-llama", "a", "full")),
        ({"datasets": [{"path": "a", "split": "train[:10%]"}]}, ("tiny-llama", "a", "full")),
        ({"datasets": [{"path": "a", "split": "train[5:10]"}]}, ("tiny-llama", "a", "full")),
        ({"datasets": [{"path": "a"}, {"path": "b"}]}, ("tiny-llama", "a", "full")),
        ({"datasets": []}, ("tiny-llama", "dataset", "full")),
        ({"datasets": [{}]}, ("tiny-llama", "dataset", "full")),
        ({"datasets": None, "pretraining_dataset": "hub/c4"}, ("tiny-llama", "c4", "full")),
        ({"datasets": None, "pretraining_dataset": [{"path": "c4"}]}, ("tiny-llama", "c4", "full")),
        pytest.param(
            {"datasets": [{"path": "Rows.JSONL"}]}, ("tiny-llama", "rows", "full"),
        ),
    ],
)  # fmt: skip
def test_a_name_is_made_of_model_data_set_and_size(
    axolotl: dict[str, Any], parts: tuple[str, str, str]
) -> None:
    assert naming.parts(run_config(axolotl)) == parts


@pytest.mark.parametrize(
    ("existing", "own", "name"),
    [
        ((), {}, "tiny-llama-rows-full-run1"),
        (("tiny-llama-rows-full-run1",), {}, "tiny-llama-rows-full-run2"),
        (("tiny-llama-rows-full-run7",), {}, "tiny-llama-rows-full-run8"),
        (("tiny-llama-rows-full-run10", "tiny-llama-rows-full-run9"), {}, "tiny-llama-rows-full-run11"),
        (("tiny-llama-rows-n5-run4", "other-run9", "lost+found", "run5"), {}, "tiny-llama-rows-full-run1"),
        (("other-data-full-run9",), {"SFT_RUN_COUNTER_SCOPE": "global"}, "tiny-llama-rows-full-run10"),
        (("other-data-full-run9",), {"SFT_RUN_COUNTER_SCOPE": "model"}, "tiny-llama-rows-full-run1"),
        (("tiny-llama-data-n5-run9",), {"SFT_RUN_COUNTER_SCOPE": "model"}, "tiny-llama-rows-full-run10"),
        (("tiny-llama-data-n5-run9",), {}, "tiny-llama-rows-full-run1"),
        (("tiny-llama-rows-full-run9998",), {}, "tiny-llama-rows-full-run9999"),
        (("tiny-llama-rows-full-run9999",), {}, "tiny-llama-rows-full-ts20260102030405"),
        ((), {"FORCE_RUN_INDEX": 42}, "tiny-llama-rows-full-run42"),
        (("tiny-llama-rows-full-run41",), {"FORCE_RUN_INDEX": 7}, "tiny-llama-rows-full-run7"),
        ((), {"FORCE_RUN_NAME": "my-model-run42"}, "my-model-run42"),
        ((), {"LEGACY_RUN_NAME": "old"}, "tiny-llama-rows-full-run1"),
        ((), {"USE_LEGACY_NAMING": True}, "rows_full_tiny_llama"),
        ((), {"USE_LEGACY_NAMING": True, "LEGACY_RUN_NAME": "old_name"}, "old_name"),
        ((), {"USE_LEGACY_NAMING": True, "FORCE_RUN_NAME": "a-run1"}, "rows_full_tiny_llama"),
    ],
)  # fmt: skip
def test_the_next_name_follows_from_what_exists(
    existing: tuple[str, ...], own: dict[str, Any], name: str
) -> None:
    assert named(existing, **own).name == name


def test_the_parts_of_a_name_come_with_it() -> None:
    found = named(FORCE_RUN_NAME="my-model-run42")
    assert (found.prefix, found.index) == ("my-model", 42)
    assert (found.model, found.dataset, found.size) == ("tiny-llama", "rows", "full")
    assert named(("tiny-llama-rows-full-run9999",)).index == 0
    assert named(USE_LEGACY_NAMING=True).index == 0


@pytest.mark.parametrize(
    "name",
    ["my-model", "My-run1", "a_b-run1", "../x-run1", "/x-run1", "a-run", "a-runx", "-run1",
     "a run1", "-a-run1", "x" * 124 + "-run1", "a-run\u0661", "a-run1\nb-run1", "a-run123456"],
)  # fmt: skip
def test_a_forced_name_that_breaks_the_rules_is_refused(name: str) -> None:
    [line] = builders.problems({"FORCE_RUN_NAME": name})
    assert line.startswith("FORCE_RUN_NAME: ")
    assert "<prefix>-run<N>" in line


@pytest.mark.parametrize("name", ["a-run1", "my-model-run42", "x" * 118 + "-run9999", "1-run0"])
def test_a_forced_name_that_keeps_the_rules_is_the_name(name: str) -> None:
    assert builders.load({"FORCE_RUN_NAME": name}).get("FORCE_RUN_NAME") == name
    assert named(FORCE_RUN_NAME=name).name == name


def test_a_forced_number_that_is_taken_is_refused() -> None:
    with pytest.raises(Refused, match="FORCE_RUN_INDEX: 3 is taken"):
        named(("tiny-llama-rows-full-run3",), FORCE_RUN_INDEX=3)


def test_a_refused_number_names_the_run_that_has_it() -> None:
    with pytest.raises(Refused, match="other-data-full-run3"):
        named(("other-data-full-run3",), FORCE_RUN_INDEX=3, SFT_RUN_COUNTER_SCOPE="global")


@pytest.mark.parametrize(
    "name", ["../outside", "/abs", "a/b", ".", "..", ".hidden", "-rf", "a b", "x" * 129]
)
def test_a_legacy_name_is_one_folder_inside_the_outputs(name: str) -> None:
    [line] = builders.problems({"LEGACY_RUN_NAME": name})
    assert "one folder name" in line


LONGEST = run_config({"base_model": LONG, "datasets": [{"path": LONG, "split": "t[:99999]"}]})


def test_a_name_has_at_most_128_characters_and_is_still_counted() -> None:
    first = naming.next_name(LONGEST, (), NOW)
    second = naming.next_name(LONGEST, (first.name,), NOW)
    tenth = naming.next_name(LONGEST, (first.name, second.name[:-1] + "9"), NOW)
    eleventh = naming.next_name(LONGEST, (first.name, tenth.name), NOW)
    assert [run.index for run in (first, second, tenth, eleventh)] == [1, 2, 10, 11]
    assert all(len(run.name) <= 128 for run in (first, second, tenth, eleventh))
    assert all(re.fullmatch(r"[a-z0-9-]+", run.name) for run in (first, eleventh))


def test_a_legacy_name_has_at_most_128_characters_too() -> None:
    assert len(naming.legacy_name(LONGEST)) <= 128


def test_another_long_model_does_not_share_the_counter() -> None:
    other = run_config({**LONGEST.plain(), "base_model": LONG + "y"})
    taken = naming.next_name(LONGEST, (), NOW).name
    assert naming.next_name(other, (taken,), NOW).index == 1


def test_rows_that_were_prepared_are_called_by_their_folder() -> None:
    rows = {"datasets": [{"path": "/data/Sums/train.jsonl"}]}
    assert naming.parts(run_config(rows)) == ("tiny-llama", "train", "full")
    prepared = run_config(rows, SFT_DATA_DIRS=["./Sums/"])
    assert naming.parts(prepared) == ("tiny-llama", "sums", "full")
