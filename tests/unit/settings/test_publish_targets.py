"""Where a result is to go: how places are spelled, and what Axolotl's own keys become."""

import pytest

from envtune.resolve.rules import resolve
from envtune.settings import publish_targets
from tests.unit.builders import MODEL_AND_DATA, load, make_facts


@pytest.mark.parametrize(
    ("text", "url", "id_", "revision"),
    [
        ("acme/tuned", "hf://acme/tuned", "acme/tuned", None),
        ("hf://acme/tuned@v2", "hf://acme/tuned@v2", "acme/tuned", "v2"),
        ("tuned", "hf://tuned", "tuned", None),
        ("s3://bucket/a/b/", "s3://bucket/a/b", "", None),
        ("gs://bucket", "gs://bucket", "", None),
        ("az://container/a", "az://container/a", "", None),
        ("abfs://container/a", "abfs://container/a", "", None),
        ("file:///mnt/models", "file:///mnt/models", "", None),
    ],
)
def test_a_place_is_told_by_its_spelling(
    text: str, url: str, id_: str, revision: str | None
) -> None:
    place = publish_targets.parse("SFT_PUSH_TO", text)
    assert (place.url, place.id, place.revision) == (url, id_, revision)


@pytest.mark.parametrize(
    "text", ["hf://datasets/acme/rows", "ftp://host/x", "/mnt/models", "a b", "file://models", ""]
)
def test_what_is_no_place_is_told_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no place to publish to; allowed: org/name"):
        publish_targets.parse("SFT_PUSH_TO", text)


def problems(**environ: str) -> list[str]:
    return [
        str(problem) for problem in publish_targets.problems(load({**MODEL_AND_DATA, **environ}))
    ]


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"SFT_PUSH_TO": "acme/a,b c"}, "SFT_PUSH_TO: 'b c' is no place"),
        ({"AXOLOTL_HUB_MODEL_ID": "a b"}, "AXOLOTL_HUB_MODEL_ID: 'a b' is no place"),
        (
            {"AXOLOTL_HUB_MODEL_ID": "acme/a", "SFT_PUSH_TO": "acme/a"},
            "AXOLOTL_HUB_MODEL_ID: is set and so is SFT_PUSH_TO; name every place in the latter",
        ),
        (
            {"SFT_PUSH_WHAT": "merged", "AXOLOTL_ADAPTER": "null"},
            "SFT_PUSH_WHAT: is merged and all weights train",
        ),
        ({"SFT_PUSH_WHAT": "model"}, "SFT_PUSH_WHAT: is model and an adapter trains"),
    ],
)
def test_what_cannot_be_published_is_told_before_training(
    environ: dict[str, str], line: str
) -> None:
    [told] = problems(**environ)
    assert told.startswith(line)


def test_several_places_are_one_list() -> None:
    given = load({**MODEL_AND_DATA, "SFT_PUSH_TO": "acme/a, s3://bucket/x"})
    assert [place.url for place in publish_targets.wanted(given)] == [
        "hf://acme/a",
        "s3://bucket/x",
    ]
    assert publish_targets.wanted(load(MODEL_AND_DATA)) == []


def test_axolotl_pushes_nothing_and_its_keys_are_a_place() -> None:
    keys = {"MODEL_ID": "acme/a", "STRATEGY": "every_save", "REVISION": "v2"}
    environ = {f"AXOLOTL_HUB_{name}": value for name, value in keys.items()}
    given = publish_targets.translated(load({**MODEL_AND_DATA, **environ}))
    [place] = publish_targets.wanted(given)
    assert (place.name, place.id, place.revision) == ("AXOLOTL_HUB_MODEL_ID", "acme/a", "v2")
    assert given.notes == (
        "AXOLOTL_HUB_STRATEGY: no checkpoint is pushed; the checked result is, once",
        "AXOLOTL_HUB_MODEL_ID: taken as SFT_PUSH_TO=hf://acme/a@v2",
    )
    config = resolve(given, make_facts())
    assert not [key for key in config.axolotl if key.startswith("hub_")]
    assert config.setting("SFT_PUSH_TO") == ["hf://acme/a@v2"]
    assert config.key({}) == resolve(load(MODEL_AND_DATA), make_facts()).key({})
