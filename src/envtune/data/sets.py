"""A data set as its rows are read: its files, and the keys of Axolotl's by which each row reads."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from envtune.data import shapes, soundness
from envtune.data.batches import BadRow, Batch, Row, Tell, refuse
from envtune.data.reading import formats
from envtune.errors import Exit, Problem, Refused

if TYPE_CHECKING:  # a check reads rows and prepares none
    from envtune.data.taken.preparation import DataSet

Keys = Mapping[str, Any]
# Where a data set lies and which of its rows are meant; all else says how a row reads.
WHERE = ("path", "name", "split", "ds_type", "data_files", "revision", "shards", "shards_idx")
# What says how rows read. Where nobody has said it, each row's own columns do.
SAYS = ("type", "field", "field_messages", "message_property_mappings", "input_format")
_FIRST = re.compile(r":(\d+)\]")


@dataclass(frozen=True)
class Source:
    """What a data set says, the files that hold its rows, and whether nobody has said how they
    read. `most`: how many rows of them are meant."""

    item: Keys
    files: tuple[str, ...]
    untyped: bool = False
    most: int | None = None

    def keys(self, row: Row) -> Keys:
        """How a row reads; no type where its columns do not tell."""
        if not self.untyped:
            return self.said
        try:
            return {**self.said, **shapes.told(row)}
        except BadRow:
            return self.said

    @property
    def said(self) -> Keys:
        left = (*WHERE, *SAYS) if self.untyped else WHERE
        return {name: value for name, value in self.item.items() if name not in left}

    def alike(self, rows: Sequence[Row]) -> Keys | None:
        """How rows read that all read alike, where that is told at once of all of them."""
        if not self.untyped:
            return self.said
        first, *others = set(map(tuple, rows))
        return None if others or set(shapes.CHATS) & {*first} else self.keys(rows[0])

    def batches(self, tell: Tell = refuse, size: int | None = None) -> Iterator[Batch]:
        """The rows from the start, up to `size` at a time. `tell` hears of those that cannot be
        read."""
        left, kind = self.most, self.item.get("ds_type")
        for file in self.files:
            for batch in formats.batches(file, kind, size or formats.SIZE, tell):
                part = batch if left is None else batch.only(range(min(left, len(batch.rows))))
                if self.untyped and not shapes.all_shaped(part.rows):
                    part = Batch(part.source, part.places, [shapes.shaped(r) for r in part.rows])
                if part.rows:
                    yield part
                left = None if left is None else left - len(part.rows)
                if left == 0:
                    return

    def problem(self, row: Row, keys: Keys) -> tuple[str, str] | None:
        """Why a row cannot be trained on: the reason and what is to be said; or None."""
        if self.untyped and "type" not in keys:
            return "no shape that is known", shapes.unknown(row)
        return soundness.problem(row, keys)


def of(item: Keys, files: Sequence[str], *, untyped: bool, named: str = "datasets") -> Source:
    """A data set of files. Raises Refused for a part of it that is not its first rows."""
    split, _, part = str(item.get("split") or "train").partition("[")
    first = _FIRST.fullmatch(part)
    if part and not first:
        what = f"{item['path']} is cut at [{part}; only the first rows are taken, as {split}[:100]"
        raise Refused([Problem(named, what, Exit.CONFIG)])
    return Source(item, tuple(files), untyped, int(first[1]) if first else None)


def files_of(item: Keys) -> list[str] | None:
    """The files of a data set that lies here, or None. Raises BadRow, OSError."""
    path, given = str(item.get("path") or ""), item.get("data_files")
    several = [given] if isinstance(given, str) else list(given or ())
    if given and not all(isinstance(one, str) for one in several):
        return None
    if several and path.startswith("/"):
        several = [one if os.path.exists(one) else os.path.join(path, one) for one in several]
        several = [os.path.abspath(one) for one in several]
    elif not several:
        several = [path]
    if not all(one.startswith("/") for one in several):
        return None
    return [file for one in several for file in formats.members(one)]


def data_set(source: Source, tell: Tell = refuse) -> "DataSet":
    """What the preparation takes rows of."""
    from envtune.data.taken.preparation import DataSet

    return DataSet(
        name=str(source.item["path"]),
        batches=partial(source.batches, tell),
        keys=source.keys,
        texts=soundness.texts,
        problem=source.problem,
    )


def read(source: Source, tell: Tell = refuse) -> Iterator[tuple[Keys, Batch]]:
    """All rows that can be trained on, those that read alike together within a batch."""
    judge = None if source.untyped else soundness.judge(source.said)
    for batch in source.batches(tell):
        alike = source.alike(batch.rows)
        if alike and "type" in alike and soundness.all_sound(batch, alike):
            yield alike, batch
            continue
        found: dict[str, tuple[Keys, list[int]]] = {}
        keys, name = source.said, ""
        for index, row in enumerate(batch.rows):
            if source.untyped:
                keys = source.keys(row)
                name = repr(keys)
            if told := judge(row) if judge else source.problem(row, keys):
                tell(BadRow(batch.where(index), *told))
            else:
                found.setdefault(name, (keys, []))[1].append(index)
        for keys_, several in found.values():
            yield keys_, batch.only(several)
