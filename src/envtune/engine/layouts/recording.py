"""The layout of a type that asks and answers, from Axolotl's own code for it.

The type is given a row whose columns are marks, and asked for its tokens; what it would have
tokenised is its prompt with the marks in it. So no layout is copied, and a type of the user's
own has one too.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Any

from envtune.engine.layouts.layout import INPUT, SYSTEM, USER, Column, Prompt
from envtune.engine.rows import RowStrategy

# A column's mark: its number between two letters that no text has.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_ROLES = (USER, INPUT, "answer", SYSTEM)


class Unrecorded(Exception):
    """A type that lays its rows out in a way that no template repeats; says which."""


class Row(dict[str, Any]):
    """A row with a mark in each column that is asked for, or nothing in those named."""

    def __init__(self, columns: Collection[str] | None, empty: Collection[str] = ()) -> None:
        super().__init__()
        self.columns, self.empty = columns, empty
        self.marked: list[str] = []

    def __contains__(self, name: object) -> bool:
        return self.columns is None or name in self.columns

    def __missing__(self, name: str) -> str:
        if name not in self:
            raise KeyError(name)
        if name not in self.marked:
            self.marked.append(name)
        return "" if name in self.empty else f"{_OPEN}{self.marked.index(name)}{_CLOSE}"

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401  # this is what it does

    def names(self, text: str) -> list[str]:
        """The columns whose marks a text has."""
        return [self.marked[int(found)] for found in _MARK.findall(text)]


def roles(strategy: Any, columns: Collection[str] | None) -> dict[str, str]:
    """What each column of a prompt is to a chat: the message, its input, system, or its own name.
    Raises Unrecorded."""
    row = Row(columns)
    prompt, answer = texts(strategy, row)
    if isinstance(strategy, RowStrategy):
        return _of_row(row.names(prompt), row.names(answer))
    asking = Row(columns)
    fields = strategy.parse_instruction_fields(asking)
    told: dict[str, str] = {}
    for role, found in zip(_ROLES, fields, strict=False):
        told |= {name: role for name in asking.names(str(found)) if name not in told}
    asked = [name for name in row.names(prompt) if told.get(name) != "answer"]
    several = [name for name in asked if told.get(name) == USER][:-1]
    return {name: _identifier(name) if name in several else told.get(name, USER) for name in asked}


def _of_row(asked: list[str], answers: list[str]) -> dict[str, str]:
    """Of a layout of columns the first asks, unless its name says otherwise."""
    known = {"input": INPUT, "system": SYSTEM}
    if len(asked) == 1:
        return {asked[0]: USER}
    first = next((name for name in asked if name not in known), asked[0] if asked else "")
    return {n: USER if n == first else known.get(n, _identifier(n)) for n in asked}


def _identifier(name: str) -> str:
    made = re.sub(r"\W", "_", name)
    return f"_{made}" if made[:1].isdigit() else made


def prompts(
    strategy: Any, columns: Collection[str] | None, named: Mapping[str, str]
) -> dict[frozenset[str], Prompt]:
    """The prompt for each set of optional roles that are there. Raises Unrecorded."""
    made: dict[frozenset[str], Prompt] = {}
    optional = [role for role in (SYSTEM, INPUT) if role in named.values()]
    for given in _subsets(optional):
        empty = [n for n, role in named.items() if role in optional and role not in given]
        row = Row(columns, empty)
        text, _ = texts(strategy, row)
        made[frozenset(given)] = list(_cut(text, [named.get(n, USER) for n in row.marked]))
    return made


def _subsets(roles: list[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(roles), -1, -1):
        yield from combinations(roles, size)


def _cut(text: str, roles: list[str]) -> Iterator[str | Column]:
    pieces = _MARK.split(text)
    for index, piece in enumerate(pieces):
        if index % 2:
            yield Column(roles[int(piece)])
        elif piece:
            if _OPEN in piece or _CLOSE in piece:
                raise Unrecorded("its rows are laid out by code")
            yield piece


def texts(strategy: Any, row: Mapping[str, Any]) -> tuple[str, str]:
    """What a type tokenises of a row: the prompt, then the answer. Raises Unrecorded."""
    try:
        if isinstance(strategy, RowStrategy):
            parts = strategy.layout.parts(row)
        else:
            parts = _listened(strategy, row)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Unrecorded(f"its rows are laid out by code ({type(error).__name__})") from None
    if [ends for _, ends in parts] != [False, True]:
        raise Unrecorded("a row is not one prompt with one answer")
    return parts[0][0], parts[1][0]


def _listened(strategy: Any, row: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """The texts that Axolotl's strategy asks to be tokenised, and which of them ends a row."""
    heard: list[tuple[str, bool]] = []

    def hear(prompt: str, add_eos_token: bool = True, **_: Any) -> dict[str, list[int]]:
        heard.append((prompt, add_eos_token))
        return {"input_ids": [0], "attention_mask": [1], "labels": [0]}

    strategy._tokenize = hear
    try:
        strategy.tokenize_prompt(row)
    finally:
        del strategy._tokenize
    return heard
