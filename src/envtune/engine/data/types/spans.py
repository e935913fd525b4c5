"""Where a turn stands in a conversation's text: what changes when another text takes its place.

Two stand-ins without a common edge, since a template may write one's first or last character
beside it. As in Axolotl, the part that is equal at the end does not reach into the one that is
equal at the start, which counts where a text is a stand-in's beginning.
"""

from collections.abc import Callable, Sequence
from typing import Any

STAND_INS = ("[[dummy_message]]", "zzdummymessagezz")


def of_turn(
    render: Callable[[list[Any]], str], turns: Sequence[Any], index: int, text: str
) -> tuple[int, int] | None:
    """The characters of `text`, the whole conversation, that are of a turn; None for no text.

    Raises what `render` raises: a template may refuse the stand-in.
    """
    role = turns[index].get("role")
    found = []
    for stand_in in STAND_INS:
        turn = {"role": role, "content": stand_in}
        found.append(_changed(text, render([*turns[:index], turn, *turns[index + 1 :]])))
    start, end = min(start for start, _ in found), max(end for _, end in found)
    return (start, end) if start < end else None


def _changed(text: str, other: str) -> tuple[int, int]:
    limit = min(len(text), len(other))
    start = _common(text, other, limit)
    return start, len(text) - _common_end(text, other, limit - start)


def _common(text: str, other: str, limit: int) -> int:
    low = 0
    while low < limit:  # halves what is left, and compares it in C
        middle = (low + limit + 1) // 2
        if text[low:middle] == other[low:middle]:
            low = middle
        else:
            limit = middle - 1
    return low


def _common_end(text: str, other: str, limit: int) -> int:
    low, size, length = 0, len(text), len(other)
    while low < limit:
        middle = (low + limit + 1) // 2
        if text[size - middle : size - low] == other[length - middle : length - low]:
            low = middle
        else:
            limit = middle - 1
    return low
