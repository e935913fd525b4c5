"""The whole way of the rows: order, stability, sizes, and the same rows each time."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from envtune.data.batches import BadRow, Batch
from envtune.data.taken import counts, duplicates, preparation, split, wishes
from envtune.data.taken.filters import Rule
from envtune.data.taken.preparation import DataSet
from envtune.data.taken.wishes import Wanted
from envtune.settings.own import OWN
from envtune.settings.own.preparation import FIRST_EXHAUSTED

Row = Mapping[str, Any]
NO_X: Rule = lambda prompt, answer: "has an x" if "x" in prompt else ""  # noqa: E731


def of(name: str, rows: Sequence[Row], size: int = 7) -> DataSet:
    def batches() -> Iterator[Batch]:
        for at in range(0, len(rows), size):
            part = rows[at : at + size]
            yield Batch(f"{name}.jsonl", range(at + 1, at + 1 + len(part)), part)

    def keys(row: Row) -> dict[str, str]:
        return {"type": "alpaca" if "q" in row else "completion"}

    return DataSet(name, batches, keys, lambda row, _: (row.get("q", ""), row.get("a", "")))


def some(count: int, start: int = 0) -> list[Row]:
    return [{"q": f"question {n}", "a": f"answer {n}"} for n in range(start, start + count)]


def gone(
    sets: Sequence[DataSet], wanted: Wanted
) -> tuple[dict[str, list[str]], list[counts.Counts]]:
    """The rows of each split by their prompts, and the counts."""
    found: dict[str, list[str]] = {"train": [], "val": []}
    made = preparation.prepared(sets, wanted)
    for name, keys, batch in made:
        assert keys in ({"type": "alpaca"}, {"type": "completion"})
        found[name] += [row["q"] for row in batch.rows]
    return found, made.counts


def test_nothing_asked_for_takes_every_row_as_it_comes() -> None:
    found, [told] = gone([of("a", some(20))], Wanted())
    assert found == {"train": [row["q"] for row in some(20)], "val": []}
    assert (told.read, told.trained, told.dropped) == (20, 20, Counter())


def test_rows_are_dropped_in_the_order_that_the_counts_tell() -> None:
    rows = [*some(3), {"q": "x", "a": ""}, *some(2), {"q": "x", "a": ""}, *some(9, 3)]
    found, [told] = gone([of("a", rows)], Wanted(rules=(NO_X,), unique=True, sample=6))
    assert found["train"] == [f"question {n}" for n in range(6)]
    # The second x is one with an x, and no duplicate; what lies past the sample is not counted.
    assert told.dropped == {"has an x": 2, duplicates.DUPLICATE: 2}
    assert told.first == {
        "has an x": ["a.jsonl:4", "a.jsonl:7"],
        duplicates.DUPLICATE: ["a.jsonl:5", "a.jsonl:6"],
    }
    assert (told.read, told.complete) == (10, False)


def test_what_lies_past_a_sample_is_no_duplicate_of_a_later_set() -> None:
    same = some(10)
    found, told = gone([of("a", same), of("b", same)], Wanted(unique=True, sample=4))
    assert found["train"] == [f"question {n}" for n in range(8)]
    assert [one.kept["train"] for one in told] == [4, 4]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_batches_decide_nothing(size: int, dice: random.Random) -> None:
    rows = [dice.choice(some(60)) for _ in range(100)]
    wanted = Wanted(rules=(NO_X,), unique=True, sample=30, held=0.3)
    assert gone([of("a", rows, size)], wanted) == gone([of("a", rows)], wanted)


def test_a_row_keeps_its_side_when_others_come_go_and_move(dice: random.Random) -> None:
    rows, seed = some(400), dice.randrange(2**40)
    whole, _ = gone([of("a", rows)], Wanted(held=0.2, seed=seed))
    assert 40 < len(whole["val"]) < 120
    for _ in range(20):
        fewer = dice.sample(rows, dice.randint(1, 400))
        several = [of("a", [*fewer, *some(50, 1000)]), of("b", some(30, 2000))]
        found, _ = gone(several, Wanted(held=0.2, seed=seed))
        for name in ("train", "val"):
            known = {row["q"] for row in fewer} & set(whole[name])
            assert known <= set(found[name])
    wider, _ = gone([of("a", rows)], Wanted(held=0.5, seed=seed))
    assert set(whole["val"]) <= set(wider["val"])
    other, _ = gone([of("a", rows)], Wanted(held=0.2, seed=seed + 1))
    assert other["val"] != whole["val"]


def test_the_same_text_is_never_on_both_sides_however_it_reads(dice: random.Random) -> None:
    texts = [{"a": f"answer {n}"} for n in range(80)]
    asked = [{"q": "", **text} for text in texts]
    sides: dict[str, set[str]] = {"train": set(), "val": set()}
    for name, _, batch in preparation.prepared([of("a", texts), of("b", asked)], Wanted(held=0.4)):
        sides[name] |= {row["a"] for row in batch.rows}
    assert not sides["train"] & sides["val"]
    assert len(sides["train"] | sides["val"]) == 80


@pytest.mark.parametrize("count", [2, 5, 60])
def test_a_number_of_rows_is_held_back_exactly(count: int, dice: random.Random) -> None:
    rows = some(60)
    dice.shuffle(rows)
    found, _ = gone([of("a", rows[:25]), of("b", rows[25:])], Wanted(held=count))
    assert (len(found["val"]), len(found["train"])) == (count, 60 - count)
    moved, _ = gone([of("a", some(60))], Wanted(held=count))
    assert set(moved["val"]) == set(found["val"])


def test_all_held_back_counts_no_dropped_row_among_them() -> None:
    rows = [{"q": "x", "a": ""}, *some(5)]
    found, [told] = gone([of("a", rows)], Wanted(rules=(NO_X,), held=1))
    assert (found["train"], len(found["val"]), told.kept["val"]) == ([], 5, 5)
    assert counts.problem([told], 1).startswith("a: none of its 6 rows is left to train")


def test_weights_take_exact_shares_of_what_is_left(dice: random.Random) -> None:
    sets = [of("a", [*some(100), {"q": "x", "a": ""}]), of("b", some(30, 500))]
    for ordered in (False, True):
        wanted = Wanted(rules=(NO_X,), held=0.1, weights=(0.7, 0.3), strategy="all_exhausted",
                        seed=dice.randrange(99), ordered=ordered)  # fmt: skip
        found, told = gone(sets, wanted)
        first = {row["q"] for row in some(100)}
        given = [
            sum(q in first for q in found["train"]),
            sum(q not in first for q in found["train"]),
        ]
        assert [one.drawn for one in told] == given
        assert abs(given[0] - 0.7 * len(found["train"])) < 1
        seen = Counter(found["train"])
        assert len(seen) == sum(one.kept["train"] for one in told)  # each row at least once
        for one in told:  # a row again only when all others were taken as often
            mine = [times for q, times in seen.items() if (q in first) == (one.name == "a")]
            assert max(mine) - min(mine) <= 1
        assert not set(found["train"]) & set(found["val"])
        assert max(Counter(found["val"]).values()) == 1
    # The last one keeps the mixture's order, in which no set waits.
    assert all(
        len({q in first for q in found["train"][at : at + 4]}) == 2 for at in range(0, 40, 4)
    )


def test_first_exhausted_repeats_no_row() -> None:
    wanted = Wanted(weights=(1, 1), strategy=FIRST_EXHAUSTED)
    found, told = gone([of("a", some(50)), of("b", some(9, 500))], wanted)
    assert max(Counter(found["train"]).values()) == 1
    assert {one.drawn for one in told} <= {8, 9}
    assert told[0].plain()["passes"] < 1


def test_weights_without_an_end_in_sight_are_told() -> None:
    sets = [of("a", some(50)), of("b", some(2, 500))]
    with pytest.raises(BadRow, match=r"b: its weight goes 25,000,000 times through its 2 rows"):
        gone(sets, Wanted(weights=(1e-6, 1), strategy="all_exhausted"))
    found, _ = gone(sets, Wanted(weights=(1e-6, 1), strategy=FIRST_EXHAUSTED))
    assert len(found["train"]) == 2


def test_a_weighted_set_of_which_nothing_is_left_is_told() -> None:
    sets = [of("a", some(5)), of("b", [{"q": "x", "a": ""}])]
    found, told = gone(sets, Wanted(rules=(NO_X,), weights=(1, 1)))
    assert found["train"] == []
    assert counts.problem(told, 0) == (
        "b: none of its 1 rows is left to train (1: has an x); widen the filters"
    )


@pytest.mark.parametrize(
    ("rows", "held", "told"),
    [
        (some(4), 0, ""),
        ([], 0, "a: none of its 0 rows"),
        ([{"q": "x", "a": ""}], 0, "1: has an x); widen the filters"),
        (some(1), 1e-9, "1e-09 of 1 rows holds none back; give a number of rows, such as 8"),
    ],
)
def test_what_cannot_be_trained_is_one_line(rows: list[Row], held: float, told: str) -> None:
    _, made = gone([of("a", rows)], Wanted(rules=(NO_X,), held=held))
    assert told in counts.problem(made, held)
    assert bool(told) == bool(counts.problem(made, held))


def test_rows_of_several_shapes_keep_their_places() -> None:
    rows: list[Row] = [{"q": "1", "a": ""}, {"a": "2"}, {"q": "3", "a": ""}]
    told = [
        (dict(keys), [batch.where(i) for i in range(len(batch.rows))])
        for _, keys, batch in preparation.prepared([of("a", rows)], Wanted())
    ]
    assert told == [
        ({"type": "alpaca"}, ["a.jsonl:1", "a.jsonl:3"]), ({"type": "completion"}, ["a.jsonl:2"]),
    ]  # fmt: skip


def test_two_times_are_the_same_rows_in_the_same_order(dice: random.Random) -> None:
    rows = [dice.choice(some(300)) for _ in range(400)]
    wanted = Wanted(
        rules=(NO_X,), unique=True, held=0.1, weights=(2, 5.5), strategy="all_exhausted"
    )
    sets = [of("a", rows, 33), of("b", some(90, 250))]
    assert gone(sets, wanted) == gone(sets, wanted)


def plainly(sets: Sequence[Sequence[Row]], wanted: Wanted) -> dict[str, list[str]]:
    """The same, row by row and all in memory."""
    seen, kept = set[str](), list[list[Row]]()
    for rows in sets:
        kept.append([])
        for row in rows:
            if len(kept[-1]) == wanted.sample:
                break
            lost = bool(wanted.rules and "x" in row["q"]) or (wanted.unique and str(row) in seen)
            if not lost:
                seen.add(str(row))
                kept[-1].append(row)
    taken = [row for rows in kept for row in rows]
    places = {
        str(row): split.place(duplicates.digest({}, row["q"], row["a"]), wanted.seed)
        for row in taken
    }
    bound = split.below(wanted.held)
    if wanted.held > 1:
        bound = max(sorted(places[str(row)] for row in taken)[: int(wanted.held)], default=-1) + 1
    sides = [(row["q"], places[str(row)] < bound) for row in taken]
    return {"train": [q for q, held in sides if not held], "val": [q for q, held in sides if held]}


def test_any_wishes_take_the_rows_that_a_plain_reading_takes(dice: random.Random) -> None:
    for _ in range(150):
        pool = [*some(dice.randint(1, 30)), {"q": "x", "a": ""}]
        sets = [[dice.choice(pool) for _ in range(dice.randint(0, 40))] for _ in range(2)]
        wanted = Wanted(
            rules=dice.choice([(), (NO_X,)]), unique=dice.choice([True, False]),
            sample=dice.choice([None, 1, 7, 99]), held=dice.choice([0, 0.3, 1, 4]),
            seed=dice.randrange(99),
        )  # fmt: skip
        made = [of(name, rows, dice.randint(1, 50)) for name, rows in zip("ab", sets, strict=True)]
        found, told = gone(made, wanted)
        expected = plainly(sets, wanted)
        assert {name: sorted(rows) for name, rows in found.items()} == {
            name: sorted(rows) for name, rows in expected.items()
        }, wanted
        assert found["train"] == expected["train"]
        assert sum(one.kept["train"] for one in told) == len(expected["train"])


def test_no_rows_at_all_are_none() -> None:
    for wanted in (Wanted(), Wanted(held=3), Wanted(weights=(1.0,)), Wanted(unique=True, sample=2)):
        assert gone([of("a", [])], wanted)[0] == {"train": [], "val": []}


def test_a_split_alone_can_be_read_as_often_as_it_is_wanted() -> None:
    sets, wanted = [of("a", some(50) + some(9))], Wanted(unique=True, held=0.3)
    whole, [counted] = gone(sets, wanted)
    for name in ("train", "val", "train"):
        told: list[list[counts.Counts]] = []
        rows = preparation.of_split(sets, wanted, name, told.append)
        assert [row["q"] for _, batch in rows for row in batch.rows] == whole[name]
        assert told == [[counted]]


def test_what_is_prepared_is_prepared_already(dice: random.Random) -> None:
    rows = [dice.choice([*some(40), {"q": "x", "a": ""}]) for _ in range(100)]
    wanted = Wanted(rules=(NO_X,), unique=True)
    once, _ = gone([of("a", rows)], wanted)
    kept = [row for row in rows if row["q"] in once["train"]]
    taken = list({row["q"]: row for row in kept}.values())
    twice, [told] = gone([of("a", taken)], wanted)
    assert twice == once
    assert told.dropped == Counter()


def test_data_that_changes_between_two_readings_is_told() -> None:
    times = iter([some(9), some(4)])
    data = of("a", [])
    changing = DataSet("a", lambda: of("a", next(times)).batches(), data.keys, data.texts)
    with pytest.raises(BadRow, match="a: changed while it was read"):
        list(preparation.prepared([changing], Wanted(held=3)))


def test_a_row_that_cannot_be_trained_on_is_refused_or_counted() -> None:
    def problem(row: Row, keys: Mapping[str, Any]) -> tuple[str, str] | None:
        return None if row["a"] else ("no answer", f"{keys['type']} has no answer")

    def texts(row: Row, keys: Mapping[str, Any]) -> tuple[str, str]:
        assert row["a"], "is asked of no such row"
        return row["q"], row["a"]

    data = of("a", [*some(3), {"q": "x", "a": ""}])
    data = DataSet("a", data.batches, data.keys, texts, problem)
    with pytest.raises(BadRow, match=r"a\.jsonl:4: alpaca has no answer") as raised:
        gone([data], Wanted())
    assert raised.value.reason == "no answer"
    for wanted in (Wanted(drops=True), Wanted(drops=True, rules=(NO_X,), unique=True)):
        found, [told] = gone([data], wanted)
        assert (len(found["train"]), told.dropped) == (3, {"no answer": 1})


def test_the_wishes_of_a_configuration() -> None:
    settings = {"SFT_MIN_PROMPT_LENGTH": 3, "SFT_LANGUAGES": ["en"], "SFT_DATA_WEIGHTS": [1, 2]}
    keys = {
        "seed": 7,
        "val_set_size": 0.1,
        "dataset_exact_deduplication": True,
        "shuffle_merged_datasets": False,
    }
    made = wishes.wanted(lambda name: settings.get(name, OWN[name].default), keys)
    assert (len(made.rules), made.unique, made.held, made.seed, made.ordered) == (
        2,
        True,
        0.1,
        7,
        True,
    )
    assert made.weights == (1, 2)
    named = wishes.wanted(lambda name: OWN[name].default, {**keys, "test_datasets": [{}]})
    assert (named.held, named.rules, named.weights) == (0, (), ())


def test_a_place_is_below_the_one_of_what_is_dropped(dice: random.Random) -> None:
    for share in (0, 1e-12, 0.5, 1):
        assert 0 <= split.below(share) < 2**64
    for _ in range(1000):
        assert 0 <= split.place(dice.randbytes(16), dice.randrange(-5, 2**70)) < 2**64 - 1
