"""What is handed on while data is read: rows of one file, and the row that is wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one file, in its order. `places[i]` is where `rows[i]` begins: a line, counted from
    1, or the row's number in a file that has no lines."""

    source: str
    places: Sequence[int]
    rows: Sequence[Row]
    read: dict[str, list[Any]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def where(self, index: int) -> str:
        """A row as people name it: file:line."""
        return f"{self.source}:{self.places[index]}"

    def column(self, name: str) -> list[Any]:
        """What each row has under a name, None where it has nothing."""
        if name not in self.read:
            self.read[name] = [row.get(name) for row in self.rows]
        return self.read[name]

    def __reduce__(self) -> tuple[type["Batch"], tuple[str, Sequence[int], Sequence[Row]]]:
        """Between processes, without the columns that were read of it."""
        return Batch, (self.source, self.places, self.rows)

    def only(self, indices: Sequence[int]) -> "Batch":
        """Some of the rows."""
        if len(indices) == len(self.rows):
            return self
        places, rows = self.places, self.rows
        return Batch(self.source, [places[i] for i in indices], [rows[i] for i in indices])


class BadRow(ValueError):
    """A row that cannot be trained on. `reason` is counted: a few words, the same for each row
    of its kind; `what` says it of this one, with the column and what is allowed."""

    def __init__(self, where: str, reason: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.reason, self.what = where, reason, what

    def __reduce__(self) -> tuple[type["BadRow"], tuple[str, str, str]]:
        """Between processes, since an exception is made anew of its text otherwise."""
        return BadRow, (self.where, self.reason, self.what)


# Told of each row that is left out if this returns.
Tell = Callable[[BadRow], None]


def refuse(bad: BadRow) -> None:
    """No row is left out."""
    raise bad
