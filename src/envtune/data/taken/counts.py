"""What became of the rows of one data set: taken, held back, or dropped, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envtune.data.taken.split import HELD, TRAIN

# Places of dropped rows that are told, of each reason.
_SHOWN = 3


@dataclass
class Counts:
    """Rows of one data set. `first` holds where the first of each reason lie, as file:line;
    `drawn` how many the mixture takes, repeated ones as often; `complete` is false where the
    sample was full before the data set's end, so that the rest was not read."""

    name: str
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)
    weight: float | None = None
    drawn: int | None = None
    complete: bool = True

    def drop(self, reason: str, where: str) -> None:
        """Counts one row that is not taken."""
        self.dropped[reason] += 1
        places = self.first.setdefault(reason, [])
        if len(places) < _SHOWN:
            places.append(where)

    @property
    def trained(self) -> int:
        """Rows of one epoch."""
        return self.kept[TRAIN] if self.drawn is None else self.drawn

    def plain(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        made: dict[str, Any] = {
            "name": self.name,
            "rows_read": self.read,
            "read_to_its_end": self.complete,
            "dropped": dict(self.dropped.most_common()),
            "first_dropped": self.first,
            "train": self.kept[TRAIN],
            "val": self.kept[HELD],
        }
        if self.drawn is not None and self.kept[TRAIN]:
            passes = round(self.drawn / self.kept[TRAIN], 4)
            made |= {"weight": self.weight, "drawn": self.drawn, "passes": passes}
        return made


def lines(counts: Iterable[Counts]) -> list[str]:
    """One line a data set, and one for each reason of a drop."""
    told = []
    for one in counts:
        shown = f"{one.name}: {one.read:,} rows read, {one.kept[TRAIN]:,} to train"
        shown += f", {one.kept[HELD]:,} held back" if one.kept[HELD] else ""
        if one.drawn is not None:
            shown += f"; its weight takes {one.drawn:,}"
        told.append(shown)
        for reason, rows in one.dropped.most_common():
            told.append(f"{one.name}: {rows:,} dropped: {reason}; first {one.first[reason][0]}")
    return told


def problem(counts: Sequence[Counts], held: float) -> str:
    """Why nothing can be trained, or evaluated, of what was kept; nothing where all is well."""
    for one in counts:
        if not one.kept[TRAIN] and (one.weight is not None or len(counts) == 1):
            return f"{one.name}: none of its {one.read:,} rows is left to train{_why(one.dropped)}"
    if not any(one.kept[TRAIN] for one in counts):
        whole: Counter[str] = sum((one.dropped for one in counts), Counter())
        return f"no row is left to train{_why(whole)}"
    rows = sum(one.kept[TRAIN] for one in counts)
    if held and not any(one.kept[HELD] for one in counts):
        return f"{held:g} of {rows:,} rows holds none back; give a number of rows, such as 8"
    return ""


def _why(dropped: Mapping[str, int]) -> str:
    told = [f"{rows:,}: {reason}" for reason, rows in dropped.items()]
    return f" ({'; '.join(told)}); widen the filters" if told else "; its rows are all held back"
