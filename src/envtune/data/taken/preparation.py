"""The whole preparation of the rows: filters, language, duplicates, sample, split, weights.

In this order, so that a sample is one of rows that are trained, and a weight one of what is left.
Rows stream: a batch is held at a time, and a bounded number of digests (duplicates.py). Weights,
and a number of rows to hold back, have to know all rows first: the data is then read twice, and 8
bytes a row are kept between. The same data and the same wishes give the same rows in the same
order.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from envtune.data.batches import BadRow, Batch, Row
from envtune.data.taken import duplicates, mixture, split
from envtune.data.taken.counts import Counts
from envtune.data.taken.split import HELD, TRAIN
from envtune.data.taken.wishes import Wanted
from envtune.settings.own.preparation import ALL_EXHAUSTED, STRATEGY

Keys = Mapping[str, Any]
# A split's name, how its rows read, and the rows.
Part = tuple[str, Keys, Batch]

_DROPPED = (1 << 64) - 1
# Rows of a mixture that are handed on together.
_WINDOW = 4000
# How often weights may repeat a data set within an epoch.
_MOST_TIMES = 1000


@dataclass(frozen=True)
class DataSet:
    """One data set. `batches` reads it from its start, each time the same; `keys` tells how a row
    reads, `texts` its prompt and its answer under those keys, and `problem` why it cannot be
    trained on: the reason that is counted and what is to be said, or None."""

    name: str
    batches: Callable[[], Iterable[Batch]]
    keys: Callable[[Row], Keys]
    texts: Callable[[Row, Keys], tuple[str, str]]
    problem: Callable[[Row, Keys], tuple[str, str] | None] | None = None


def prepared(sets: Sequence[DataSet], wanted: Wanted) -> "Prepared":
    """The rows that are taken, to be gone through once, and their counts."""
    return Prepared(sets, wanted)


def of_split(
    sets: Sequence[DataSet], wanted: Wanted, name: str, told: Callable[[list[Counts]], None]
) -> Iterator[tuple[Keys, Batch]]:
    """The rows of one split alone, from the beginning; `told` gets the counts at the end."""
    made = prepared(sets, wanted)
    yield from ((keys, batch) for split_, keys, batch in made if split_ == name)
    told(made.counts)


class Prepared:
    """Iterates over parts; `counts` holds what became of each data set's rows, right at the end.

    Iterating raises BadRow for a row that cannot be read, and for data that changes meanwhile.
    """

    def __init__(self, sets: Sequence[DataSet], wanted: Wanted) -> None:
        self.sets, self.wanted = sets, wanted
        weights = wanted.weights or [None] * len(sets)
        self.counts = [
            Counts(one.name, weight=weight) for one, weight in zip(sets, weights, strict=True)
        ]
        self._seen = duplicates.Seen()

    def __iter__(self) -> Iterator[Part]:
        if self.wanted.twice:
            yield from self._in_two_passes()
            return
        bound = split.below(self.wanted.held)
        for data, counts in zip(self.sets, self.counts, strict=True):
            for batch, places in self._judged(data, counts):
                yield from self._parts(data, counts, batch, places, bound)

    def _judged(self, data: DataSet, counts: Counts) -> Iterator[tuple[Batch, list[int]]]:
        """Rows and their places; _DROPPED for those that are not taken. No more rows are judged
        at a time than the sample wants, so that none is counted, or seen, beyond its end."""
        left = self.wanted.sample
        for whole in data.batches():
            start, rows = 0, len(whole.rows)
            while start < rows and left != 0:
                end = rows if left is None else min(start + left, rows)
                batch = whole.only(range(start, end))
                places = self._places(data, counts, batch)
                counts.read += len(places)
                left = None if left is None else left - sum(p != _DROPPED for p in places)
                start = end
                yield batch, places
            if start < rows:
                counts.complete = False
                return

    def _places(self, data: DataSet, counts: Counts, batch: Batch) -> list[int]:
        """Where each row lies among all that could be; _DROPPED where it is not taken."""
        if not (self.wanted.looks or data.problem):
            return [_DROPPED - 1] * len(batch.rows)
        read, reasons = list[tuple[Keys, str, str]](), list[str]()
        for index, row in enumerate(batch.rows):
            keys = data.keys(row)
            lost = self._lost(data, batch, index, keys)
            texts = ("", "") if lost or not self.wanted.looks else data.texts(row, keys)
            read.append((keys, *texts))
            reasons.append(lost or self._reason(*texts))
        if self.wanted.unique:
            self._once(read, reasons)
        for index, reason in enumerate(reasons):
            if reason:
                counts.drop(reason, batch.where(index))
        told = zip(read, reasons, strict=True)
        return [_DROPPED if reason else self._place(*texts) for (_, *texts), reason in told]

    def _lost(self, data: DataSet, batch: Batch, index: int, keys: Keys) -> str:
        """Why a row cannot be trained on, or nothing. Raises BadRow where that is refused."""
        told = data.problem(batch.rows[index], keys) if data.problem else None
        if told is not None and not self.wanted.drops:
            raise BadRow(batch.where(index), *told)
        return told[0] if told else ""

    def _reason(self, prompt: str, answer: str) -> str:
        """The first reason not to take a row, or nothing."""
        return next(filter(None, (rule(prompt, answer) for rule in self.wanted.rules)), "")

    def _once(self, read: Sequence[tuple[Keys, str, str]], reasons: list[str]) -> None:
        asked = [index for index, reason in enumerate(reasons) if not reason]
        fresh = self._seen.fresh([duplicates.digest(*read[index]) for index in asked])
        for index, new in zip(asked, fresh, strict=True):
            reasons[index] = "" if new else duplicates.DUPLICATE

    def _place(self, prompt: str, answer: str) -> int:
        """By the texts alone: the same ones, read in two ways, are on one side."""
        if not self.wanted.held:
            return _DROPPED - 1
        return split.place(duplicates.digest({}, prompt, answer), self.wanted.seed)

    def _parts(
        self, data: DataSet, counts: Counts, batch: Batch, places: Sequence[int], bound: int
    ) -> Iterator[Part]:
        """The parts of a batch, the held rows after the others."""
        train = [i for i, place in enumerate(places) if bound <= place < _DROPPED]
        held = [i for i, place in enumerate(places) if place < bound]
        for name, indices in ((TRAIN, train), (HELD, held)):
            counts.kept[name] += len(indices)
            for keys, several in _alike([(data.keys(batch.rows[i]), i) for i in indices]):
                yield name, keys, batch.only(several)

    def _in_two_passes(self) -> Iterator[Part]:
        places = [array("Q") for _ in self.sets]
        for data, counts, known in zip(self.sets, self.counts, places, strict=True):
            for _, found in self._judged(data, counts):
                known.extend(found)
        bound = self._bound(places)
        if not self.wanted.weights:
            for data, counts, known in zip(self.sets, self.counts, places, strict=True):
                for batch, again in _again(data, known):
                    yield from self._parts(data, counts, batch, again, bound)
            return
        for data, counts, known in zip(self.sets, self.counts, places, strict=True):
            counts.kept[TRAIN] = sum(bound <= place < _DROPPED for place in known)
            for batch, again in _again(data, known):
                held = [place if place < bound else _DROPPED for place in again]
                yield from self._parts(data, counts, batch, held, bound)
        yield from self._mixed(places, bound)

    def _bound(self, places: Sequence[Sequence[int]]) -> int:
        if not split.is_count(self.wanted.held):
            return split.below(self.wanted.held)
        taken = (place for known in places for place in known if place != _DROPPED)
        return split.lowest(int(self.wanted.held), taken)

    def _mixed(self, places: Sequence[Sequence[int]], bound: int) -> Iterator[Part]:
        """The rows that are trained, by weight. Nothing where a data set has none left."""
        rows = [counts.kept[TRAIN] for counts in self.counts]
        for counts in self.counts:
            counts.drawn = 0
        if not all(rows):
            return
        wells = [_cycled(one, known, bound) for one, known in zip(self.sets, places, strict=True)]
        weights = mixture.whole(self.wanted.weights)
        self._bound_times(rows, weights)
        numbers = mixture.drawn(rows, weights, self.wanted.strategy, self.wanted.seed)
        while window := [(number, *next(wells[number])) for number in islice(numbers, _WINDOW)]:
            if not self.wanted.ordered:
                window.sort(key=itemgetter(0))
            for number, _, _, _ in window:
                self.counts[number].drawn = (self.counts[number].drawn or 0) + 1
            yield from _grouped(self.sets, window)

    def _bound_times(self, rows: Sequence[int], weights: Sequence[int]) -> None:
        """Raises BadRow where weights that are far from the sizes would have no end in sight."""
        if self.wanted.strategy != ALL_EXHAUSTED:
            return
        often = zip(mixture.times_through(rows, weights), self.counts, strict=True)
        most, counts = max(often, key=itemgetter(0))
        if most > _MOST_TIMES:
            told = f"its weight goes {most:,.0f} times through its {counts.kept[TRAIN]:,} rows"
            fix = f"give it a smaller one, or set {STRATEGY}=first_exhausted"
            raise BadRow(counts.name, "weight", f"{told}; {fix}")


def _alike(keyed: Iterable[tuple[Keys, int]]) -> list[tuple[Keys, list[int]]]:
    """Indices by the keys that their rows read by; a file has few kinds of rows."""
    found: list[tuple[Keys, list[int]]] = []
    for keys, index in keyed:
        for known, indices in found:
            if known == keys:
                indices.append(index)
                break
        else:
            found.append((keys, [index]))
    return found


def _again(data: DataSet, places: Sequence[int]) -> Iterator[tuple[Batch, Sequence[int]]]:
    """The batches once more, as far as they were judged. Raises BadRow where they changed."""
    done = 0
    for batch in data.batches() if places else ():
        found = places[done : done + len(batch.rows)]
        done += len(found)
        if found:
            yield batch.only(range(len(found))), found
        if done == len(places):
            return
    if done < len(places):
        raise BadRow(
            data.name, "data changed", f"changed while it was read: {done:,} rows are left"
        )


def _cycled(data: DataSet, places: Sequence[int], bound: int) -> Iterator[tuple[str, int, Row]]:
    """The source, the place and the row of each that is trained, from the start when at the end."""
    while True:
        for batch, found in _again(data, places):
            for index, place in enumerate(found):
                if bound <= place < _DROPPED:
                    yield batch.source, batch.places[index], batch.rows[index]


def _grouped(
    sets: Sequence[DataSet], window: Iterable[tuple[int, str, int, Row]]
) -> Iterator[Part]:
    """Rows that follow each other as batches of one source and of one way to read."""
    keyed = (
        (number, source, place, row, sets[number].keys(row))
        for number, source, place, row in window
    )
    for (_, source, keys), rows in groupby(keyed, key=itemgetter(0, 1, 4)):
        several = list(rows)
        yield TRAIN, keys, Batch(source, [r[2] for r in several], [r[3] for r in several])
