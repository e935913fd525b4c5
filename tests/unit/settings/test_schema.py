"""The typing rules that `schema` states, on Axolotl's own snapshot and on small nodes."""

import random
from typing import Any

import pytest

from envtune.settings import axolotl_keys
from envtune.settings.schema import Mismatch, Node, Schema
from envtune.settings.spelling.nearest import nearest
from tests.plausible import spelled

AXOLOTL = axolotl_keys.schema()

TEXT: Node = {"type": "string"}
WHOLE: Node = {"type": "integer"}
NUMBER: Node = {"type": "number"}
FLAG: Node = {"type": "boolean"}
NULL: Node = {"type": "null"}
ANY: Node = {}
SHARE: Node = {"type": "number", "minimum": 0.0, "maximum": 1.0}
COLOUR: Node = {"enum": ["red", "green", 3]}
ITEM: Node = {
    "type": "object",
    "properties": {
        "path": TEXT,
        "count": WHOLE,
        "share": SHARE,
        "names": {"$ref": "#/$defs/Names"},
    },
}
PAIR: Node = {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2}
FREE: Node = {"type": "object", "additionalProperties": WHOLE}
CLOSED: Node = {"type": "object", "additionalProperties": False}
SMALL = Schema({}, {"Item": ITEM, "Names": {"type": "array", "items": TEXT}})
ITEMS: Node = {"type": "array", "items": {"$ref": "#/$defs/Item"}}
NAMES: Node = {"$ref": "#/$defs/Names"}


def either(*nodes: Node) -> Node:
    return {"anyOf": list(nodes)}


def listed(items: Node) -> Node:
    return {"type": "array", "items": items}


PARSED: list[tuple[str, Node, Any]] = [
    *((text, either(TEXT, NULL), None) for text in ("null", "None", "NULL", " none ", "~")),
    ("null", TEXT, "null"),
    ("~", TEXT, "~"),
    ("nullable", either(TEXT, NULL), "nullable"),
    *(
        (text, FLAG, True)
        for text in ("true", "True", "TRUE", "yes", "Yes", "on", "ON", "1", " 1 ")
    ),
    *((text, FLAG, False) for text in ("false", "False", "no", "No", "off", "OFF", "0")),
    ("1", either(FLAG, NULL), True),
    ("1", either(FLAG, WHOLE), 1),
    ("0", either(FLAG, NUMBER), 0.0),
    ("yes", either(FLAG, WHOLE), True),
    ("yes", either(FLAG, TEXT), True),
    ("yes", TEXT, "yes"),
    ("no", either(TEXT, NULL), "no"),
    (".0002", NUMBER, 0.0002),
    ("2e-4", NUMBER, 0.0002),
    ("1e-05", NUMBER, 1e-05),
    ("2E3", NUMBER, 2000.0),
    ("1_000", WHOLE, 1000),
    ("+7", WHOLE, 7),
    ("-7", WHOLE, -7),
    ("007", WHOLE, 7),
    ("3", NUMBER, 3.0),
    ("3", either(WHOLE, NUMBER), 3),
    ("3", either(NUMBER, WHOLE), 3),
    ("3.0", either(WHOLE, NUMBER), 3.0),
    ("3", either(WHOLE, TEXT), 3),
    ("3GiB", either(WHOLE, TEXT), "3GiB"),
    ("2024", TEXT, "2024"),
    ("1e5", TEXT, "1e5"),
    ("true", TEXT, "true"),
    ("nan", TEXT, "nan"),
    ("[a]", TEXT, "[a]"),
    ("{{ x }}", TEXT, "{{ x }}"),
    ("a,b", TEXT, "a,b"),
    ("red", COLOUR, "red"),
    ("3", COLOUR, 3),
    ("1", SHARE, 1.0),
    ("a,b", NAMES, ["a", "b"]),
    (" a , b ,", NAMES, ["a", "b"]),
    ("a", NAMES, ["a"]),
    ('["a,b"]', NAMES, ["a,b"]),
    ("[]", NAMES, []),
    ("1,2", listed(WHOLE), [1, 2]),
    ("1,2.5", listed(NUMBER), [1.0, 2.5]),
    ("yes,0", listed(FLAG), [True, False]),
    ("q_proj,v_proj", either(TEXT, NAMES, NULL), ["q_proj", "v_proj"]),
    ("q_proj", either(TEXT, NAMES, NULL), "q_proj"),
    ("{train}.jsonl", either(TEXT, NAMES), "{train}.jsonl"),
    ('[{"path": "a", "count": 2}]', ITEMS, [{"path": "a", "count": 2}]),
    ('[{"count": "2", "share": "5e-1"}]', ITEMS, [{"count": 2, "share": 0.5}]),
    ('[{"names": "a,b"}]', ITEMS, [{"names": ["a", "b"]}]),
    ('{"a": 1, "b": "2"}', FREE, {"a": 1, "b": 2}),
    ('{"a": {"b": [1, null, 1.5, true]}}', ANY, {"a": {"b": [1, None, 1.5, True]}}),
    ("[1, 2.5]", listed(NUMBER), [1.0, 2.5]),
    ("[1, 2.5]", listed(either(NUMBER, WHOLE)), [1, 2.5]),
    ("9" * 400, WHOLE, int("9" * 400)),
    ("1,2", PAIR, [1, 2]),
    ("12", ANY, 12),
    ("word", ANY, "word"),
]


@pytest.mark.parametrize(("text", "node", "value"), PARSED)
def test_a_text_is_read_as_its_node_says(text: str, node: Node, value: Any) -> None:
    assert repr(SMALL.parse(text, node)) == repr(value)


@pytest.mark.parametrize("text", [" you are ", "line\n", "  2024", "\ttab"])
def test_a_setting_that_takes_only_text_gets_the_text_as_it_is(text: str) -> None:
    assert SMALL.parse(text, TEXT) == text
    assert SMALL.parse(text, either(TEXT, NULL)) == text


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("maybe", FLAG), ("2", FLAG), ("1.0", FLAG), ("", FLAG), ("t", FLAG),
        ("1.5", WHOLE), ("1e-3", WHOLE), ("ten", WHOLE), ("0x10", WHOLE), ("true", WHOLE),
        ("", WHOLE), ("null", WHOLE), ("9" * 5000, NUMBER), ("9" * 400, NUMBER),
        ("[" + "9" * 400 + "]", listed(NUMBER)), ("1,2,3", PAIR), ("1", PAIR), ("[]", PAIR),
        *((text, NUMBER) for text in ("nan", "NaN", "inf", "-inf", "Infinity", "1e999", "1,5")),
        ("1.01", SHARE), ("-0.1", SHARE), ("2", SHARE), ("nan", SHARE),
        ("blue", COLOUR), ("Red", COLOUR), ("3.0", COLOUR),
        ("1,x", listed(WHOLE)), ("1,2.5", listed(WHOLE)), ('["a"]', listed(WHOLE)),
        ("[1", listed(WHOLE)), ("[NaN]", listed(NUMBER)), ("[Infinity]", listed(NUMBER)),
        ("[1e999]", listed(NUMBER)), ("[" * 100_000, ITEMS), ("[1] x", listed(WHOLE)),
        ("data.jsonl", ITEMS), ('{"path": "a"}', ITEMS), ('[{"path": 1}]', ITEMS),
        ('[{"share": 1.5}]', ITEMS), ('[{"share": "1.5"}]', ITEMS),
        ('[{"paht": "a"}]', ITEMS), ('{"a": "x"}', FREE), ('{"a": true}', FREE),
    ],
)  # fmt: skip
def test_a_text_that_its_node_does_not_allow_is_refused(text: str, node: Node) -> None:
    with pytest.raises(Mismatch) as caught:
        SMALL.parse(text, node)
    assert caught.value.allowed


@pytest.mark.parametrize(
    ("value", "node"),
    [(5, SHARE), (-1, SHARE), (0, {"type": "number", "exclusiveMinimum": 0})],
)
def test_a_whole_number_in_a_value_keeps_to_the_range_too(value: int, node: Node) -> None:
    with pytest.raises(Mismatch):
        SMALL.accept(value, node)


@pytest.mark.parametrize(
    ("text", "node"),
    [("caf\udce9", TEXT), ('["\\ud800"]', NAMES), ('{"\\ud800": 1}', FREE),
     ('{"a": ["\\udfff"]}', ANY), ("\udce9", WHOLE)],
)  # fmt: skip
def test_what_is_no_utf8_is_refused(text: str, node: Node) -> None:
    with pytest.raises(Mismatch) as caught:
        SMALL.parse(text, node)
    assert caught.value.hint == "it is not UTF-8"


@pytest.mark.parametrize("text", ["[NaN]", "[Infinity]", "[1e999]"])
def test_nan_and_infinity_are_refused_where_any_value_is_allowed(text: str) -> None:
    with pytest.raises(Mismatch):
        SMALL.parse(text, ANY)


def test_the_numbers_that_yaml_takes_for_names_are_names() -> None:
    assert SMALL.accept({0: 1, "cpu": 2}, FREE) == {"0": 1, "cpu": 2}
    with pytest.raises(Mismatch):
        SMALL.accept([{0: 1}], ITEMS)
    assert SMALL.unread(SMALL.loose.accept([{0: 1}], ITEMS), ITEMS) == [(0, "0")]


def test_a_name_that_an_object_does_not_have_is_refused_or_kept_and_told() -> None:
    """Axolotl drops it; whether that is a mistake is for those to say who know where it is from."""
    with pytest.raises(Mismatch):
        SMALL.accept({"x": 1}, CLOSED)
    assert SMALL.loose.accept({"x": 1}, CLOSED) == {"x": 1}
    assert SMALL.unread({"x": 1}, CLOSED) == [("x",)]


def test_a_slip_of_a_name_is_refused_whoever_wrote_it() -> None:
    for types in (SMALL, SMALL.loose):
        with pytest.raises(Mismatch) as caught:
            types.accept([{"paht": "a"}], ITEMS)
        assert caught.value.hint == "did you mean path?"


@pytest.mark.parametrize(("given", "whole"), [("1.0", 1), ("1e3", 1000), (1.0, 1), (False, 0)])
def test_a_whole_number_may_be_written_as_a_real_one(given: str | float, whole: int) -> None:
    """As pydantic takes it; `false` is how some write that a number of steps is off."""
    made = SMALL.parse(given, WHOLE) if isinstance(given, str) else SMALL.accept(given, WHOLE)
    assert (made, type(made)) == (whole, int)


def test_of_several_kinds_of_object_the_one_that_knows_the_names_is_meant() -> None:
    either = {"anyOf": [CLOSED, {"type": "object", "properties": {"y": WHOLE}}]}
    assert SMALL.accept({"y": "3"}, either) == {"y": 3}


def test_names_of_several_kinds_of_object_are_taken_together_and_told() -> None:
    """As the data sets of DPO in Axolotl's examples have them; a wrong value is still wrong."""
    one = {"type": "object", "properties": {"path": TEXT, "chosen": TEXT, "field": TEXT}}
    two = {"type": "object", "properties": {"path": TEXT, "mapping": FREE, "shards": WHOLE}}
    both = either(one, two)
    mixed = {"path": "a", "chosen": "c", "field": "f", "mapping": {"a": 1}}
    assert SMALL.accept(mixed, both) == mixed
    assert SMALL.unread(mixed, both) == [("mapping",)]
    for wrong in ({**mixed, "house": 1}, {"path": "a", "shards": "x"}):
        with pytest.raises(Mismatch):
            SMALL.accept(wrong, both)


def test_a_mismatch_inside_a_value_holds_the_path_to_it() -> None:
    with pytest.raises(Mismatch) as caught:
        SMALL.parse('[{"path": "a"}, {"count": "many"}]', ITEMS)
    assert caught.value.path == (1, "count")
    assert caught.value.value == "many"


def test_a_wrong_name_inside_a_value_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(Mismatch, match=r"did you mean path\?") as caught:
        SMALL.parse('[{"paht": "a"}]', ITEMS)
    assert caught.value.path == (0, "paht")


@pytest.mark.parametrize(
    ("node", "path", "found"),
    [
        (ITEMS, ["0", "count"], WHOLE),
        (ITEMS, ["7", "names", "0"], TEXT),
        (FREE, ["whatever"], WHOLE),
        (either(NULL, ITEMS), ["0", "path"], TEXT),
        ({"type": "object"}, ["a"], ANY),
    ],
)
def test_a_path_leads_to_the_node_below(node: Node, path: list[str], found: Node) -> None:
    assert SMALL.at(node, path)[1] == found


@pytest.mark.parametrize(
    ("node", "path"),
    [(TEXT, ["a"]), (ITEMS, ["a"]), (ITEMS, ["0", "0"]), (ITEMS, ["0", "paht"]), (CLOSED, ["a"])],
)
def test_a_path_to_nothing_is_refused(node: Node, path: list[str]) -> None:
    with pytest.raises(Mismatch) as caught:
        SMALL.at(node, path)
    assert [str(part) for part in caught.value.path] == path


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (FLAG, "true or false"),
        (either(FLAG, NULL), "true or false or null"),
        (WHOLE, "a whole number, e.g. 4"),
        (SHARE, "a number, e.g. 0.0002 or 2e-4 (>= 0.0, <= 1.0)"),
        (COLOUR, "one of red, green, 3"),
        (ITEMS, 'a JSON list, e.g. [{"path": "data.jsonl"}]'),
        (NAMES, 'a list, e.g. a,b or ["a","b"]'),
        (listed(WHOLE), "a list, e.g. a,b or [1,2]"),
        (PAIR, "a list, e.g. a,b or [1,2] (2 items)"),
        (listed(TEXT) | {"minItems": 1}, 'a list, e.g. a,b or ["a","b"] (at least 1)'),
        ({"type": "string", "pattern": "^a"}, "text that matches ^a"),
        (ANY, "any value"),
        (NULL, "null"),
    ],
)
def test_what_is_allowed_is_told_in_words(node: Node, words: str) -> None:
    assert SMALL.describe(node) == words


def test_nothing_is_suggested_for_a_name_that_is_near_to_none() -> None:
    for name in ("zzzz", "", "p" * 1_000_000):
        assert nearest(name, ["path", "type"]) is None


def test_a_value_of_every_setting_survives_being_text(dice: random.Random) -> None:
    wrong = []
    for key, node in AXOLOTL.fields.items():
        for text, wanted in spelled(AXOLOTL, node, dice):
            read = AXOLOTL.parse(text, node)
            if repr(read) != repr(wanted):
                wrong.append(f"{key}: {text} is read as {read!r}")
    assert not wrong


@pytest.mark.parametrize("key", ["train_on_eos", "train_on_eot"])
def test_none_is_no_null_where_it_is_one_of_the_allowed_words(key: str) -> None:
    node = AXOLOTL.fields["datasets"]
    assert AXOLOTL.parse("none", AXOLOTL.at(node, ["0", key])[1]) == "none"
    assert AXOLOTL.parse(f'[{{"{key}": "none"}}]', node) == [{key: "none"}]


def _takes_words(node: Node) -> bool:
    options = AXOLOTL._options(node)
    items = [o.get("items", {}) for o in options if o.get("type") == "array"]
    kinds = {kind for part in [node, *items] for kind in AXOLOTL._kinds(part)}
    return bool(kinds & {"string", "any"})


def test_a_word_is_refused_by_every_setting_that_takes_no_words() -> None:
    strict = {key: node for key, node in AXOLOTL.fields.items() if not _takes_words(node)}
    assert len(strict) > 200
    for key, node in strict.items():
        with pytest.raises(Mismatch):
            print(key, AXOLOTL.parse("a-word", node))


def test_the_size_of_an_image_is_two_numbers() -> None:
    with pytest.raises(Mismatch):
        AXOLOTL.parse("a-word,b", AXOLOTL.fields["image_size"])
