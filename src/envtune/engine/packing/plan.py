"""Which documents make a row, and which rows a batch: a pure function of their lengths.

The rows are planned once, from lengths alone; an epoch deals the documents anew into places of
their length. So every epoch and every rank has the same number of batches, nobody has to be asked,
and the order of an epoch is the same however often it is asked for.
"""

import hashlib
import heapq
import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

# Documents change places with those of the same length, counted in so many tokens: where few have
# the same exact one, the same would meet in every epoch. So many of a length are enough.
_GRAINS, _ALIKE = (1, 2, 4, 8), 3

Array = Any  # numpy.ndarray of whole numbers
Batch = list[list[int]]


@dataclass(frozen=True)
class Shape:
    """What is packed into: `rows` of `capacity` tokens make a batch, for each of `world` ranks.

    A row has at most `documents`. `ordered`: documents stay in the order of the data set, and
    `shuffled`: rows do not.
    """

    capacity: int
    rows: int = 1
    world: int = 1
    documents: int | None = None
    ordered: bool = False
    shuffled: bool = True


@dataclass(frozen=True)
class Plan:
    """`sizes`: what each document takes, tokens. `places`: the row of each place, in the order in
    which they are filled: those of the longest documents first, or as the data set is ordered."""

    shape: Shape
    sizes: Array
    places: Array
    batches: int

    def deal(self, seed: int, epoch: int) -> list[Batch]:
        """The documents of each row of each batch of an epoch; batch k is for rank k % world."""
        # RandomState's numbers are frozen; those of a Generator may change with numpy.
        dice = np.random.RandomState([seed % 2**32, epoch])
        documents = self._filled(dice)
        by_row = np.argsort(self.places, kind="stable")
        ends = np.cumsum(np.bincount(self.places, minlength=1))
        rows = np.split(documents[by_row], ends[:-1])
        turn = dice.permutation(len(rows)) if self.shape.shuffled else np.arange(len(rows))
        edges: Array = np.arange(self.batches + 1) * len(rows) // max(1, self.batches)
        return [
            [rows[row].tolist() for row in turn[first:last]]
            for first, last in itertools.pairwise(edges)
        ]

    def _filled(self, dice: np.random.RandomState) -> Array:
        """The document of each place. There are more places than documents where a rank would
        have no row otherwise: the shortest are seen twice then."""
        if self.shape.ordered:
            documents = np.arange(len(self.sizes))
        else:
            drawn = dice.permutation(len(self.sizes))
            documents = drawn[np.argsort(-self.sizes[drawn], kind="stable")]
        spare = len(self.places) - len(documents)
        shortest = np.argsort(self.sizes[documents], kind="stable")
        return np.concatenate([documents, np.resize(documents[shortest], spare)])

    def digest(self, seed: int) -> str:
        """A digest of the order: of its first epoch, which stands for the others."""
        dealt = self.deal(seed, 0)
        rows = [len(row) for batch in dealt for row in batch]
        documents = [document for batch in dealt for row in batch for document in row]
        counts = [len(batch) for batch in dealt]
        text = b"|".join(np.array(part, np.int64).tobytes() for part in (counts, rows, documents))
        return hashlib.sha256(text).hexdigest()


def plan(lengths: Array, shape: Shape) -> Plan:
    """The plan of documents of these lengths, tokens. One that is longer than a row is alone."""
    lengths = np.asarray(lengths, np.int64)
    sizes = np.clip(lengths if shape.ordered else _rounded(lengths), 1, shape.capacity)
    most = shape.documents or shape.capacity
    if shape.ordered:
        places = _in_order(sizes, shape.capacity, most)
    else:
        places = _best_fit(sizes, shape.capacity, most)
    rows = int(places.max(initial=-1)) + 1
    batches = shape.world * -(-rows // (shape.rows * shape.world))
    places = _split(places, batches * shape.rows)
    rows = int(places.max(initial=-1)) + 1
    spare = np.arange(rows, batches) if rows else np.zeros(0, np.int64)
    return Plan(shape, sizes, np.concatenate([places, spare]), batches)


def _rounded(lengths: Array) -> Array:
    """The lengths in the finest grain by which there are enough of each. Rounding costs room."""
    rounded = lengths
    for grain in _GRAINS:
        rounded = -(-lengths // grain) * grain
        if len(lengths) >= _ALIKE * len(np.unique(rounded)):
            break
    return rounded


def _best_fit(sizes: Array, capacity: int, most: int) -> Array:
    """The row of each place, the longest documents first, each into the fullest row that has room
    for it. Documents of one size and rows of one filling move as one."""
    rows = _Rows(capacity, most)
    values, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        left = count
        while left:
            left -= rows.place(size, left)
    return np.concatenate([np.zeros(0, np.int64), *rows.places])


class _Rows:
    """Rows that are being filled, in groups that have the same room, tokens, and hold the same
    number of documents."""

    def __init__(self, capacity: int, most: int) -> None:
        self.capacity, self.most = capacity, most
        self.groups: dict[int, list[tuple[int, Array]]] = defaultdict(list)
        self.rooms = 0  # bit n: some rows have room for n tokens
        self.made = 0
        self.places: list[Array] = []

    def place(self, size: int, count: int) -> int:
        """Places up to `count` documents of a size in one group of rows; returns how many."""
        room, held, rows = self._tightest(size, count)
        each = min(room // size, self.most - held)
        full = min(len(rows), count // each)
        part = min(count - full * each, each) if full < len(rows) else 0
        self._put(room - each * size, held + each, rows[:full])
        self._put(room - part * size, held + part, rows[full : full + bool(part)])
        self._put(room, held, rows[full + bool(part) :])
        self.places += [np.repeat(rows[:full], each), np.repeat(rows[full : full + 1], part)]
        return full * each + part

    def _tightest(self, size: int, count: int) -> tuple[int, int, Array]:
        """The group with the least room for `size`, or new rows, enough for all."""
        fitting = self.rooms >> size
        if not fitting:
            rows = -(-count // min(self.capacity // size, self.most))
            self.made += rows
            return self.capacity, 0, np.arange(self.made - rows, self.made)
        room = size + (fitting & -fitting).bit_length() - 1
        held, found = self.groups[room].pop()
        if not self.groups[room]:
            self.rooms ^= 1 << room
        return room, held, found

    def _put(self, room: int, held: int, rows: Array) -> None:
        if len(rows) and held < self.most:
            self.groups[room].append((held, rows))
            self.rooms |= 1 << room


def _in_order(sizes: Array, capacity: int, most: int) -> Array:
    """The row of each document: it begins a new one where it does not fit the last."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    starts = [0]
    while starts[-1] < len(sizes):
        first = starts[-1]
        fitting = int(np.searchsorted(ends, ends[first] + capacity, side="right")) - 1
        starts.append(min(fitting, first + most))
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _split(places: Array, wanted: int) -> Array:
    """`places` over `wanted` rows, or as many as there are documents: those of the most documents
    give half of them away. Rows are numbered by their first place."""
    counts = [(-int(count), row) for row, count in enumerate(np.bincount(places))]
    heapq.heapify(counts)
    places = places.copy()
    for new in range(len(counts), min(wanted, len(places))):
        count, row = heapq.heappop(counts)
        half = -count // 2
        places[np.flatnonzero(places == row)[-half:]] = new
        heapq.heappush(counts, (count + half, row))
        heapq.heappush(counts, (-half, new))
    _, first, numbers = np.unique(places, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]
