"""What every type of data set makes of a batch of rows."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from envtune.data.batches import Batch, Tell


class Beyond(Exception):
    """These rows are Axolotl's: `reason` says what is not known here."""


@dataclass(frozen=True)
class Made:
    """Rows as ids: row i has coded[splits[i]:splits[i + 1]], an id that is not trained as ~id.

    `ends`: the ids of which a row's last trained one should be, none where rows have no end.
    """

    coded: Any  # int32
    splits: Any  # int64
    ends: frozenset[int] = field(default_factory=frozenset)


class Strategy(Protocol):
    """How the rows of a type become ids."""

    def make(self, batch: Batch, tell: Tell) -> Made:
        """The rows of a batch, in order. Raises Beyond, and what `tell` raises."""


def coded(ids: Any, trained: Any) -> Any:
    """Ids and whether each is trained, in one number each."""
    import numpy as np

    return np.where(trained, ids, ~ids).astype(np.int32, copy=False)


def ids_of(numbers: Any) -> Any:
    """The ids, trained or not."""
    return numbers ^ (numbers >> 31)


def no_text(value: Any, name: str) -> tuple[str, str] | None:
    """Why a value is no text that becomes ids, as (reason, what), or None."""
    if not isinstance(value, str):
        return f"{name} is no text", f"{name} is {value!r:.80}, and no text"
    try:
        value.encode() if not value.isascii() else None
    except UnicodeEncodeError:
        return f"{name} has half a character", f"{name} has half of a surrogate pair: {value!r:.80}"
    return None
