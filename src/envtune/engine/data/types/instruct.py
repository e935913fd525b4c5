"""Questions and answers: alpaca and its kin, and types that are a mapping of columns.

As axolotl.prompt_tokenizers has it, a prompt and its answer become ids apart, each with what the
tokenizer adds, each cut at sequence_len; the answer ends with the end of a text and does not
begin with a text's beginning.
"""

import functools
import itertools
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envtune.data.batches import BadRow, Batch, Row, Tell
from envtune.engine.data.backend import Backend
from envtune.engine.data.types.made import Made, no_text
from envtune.settings import upstream

# Stands in a row's numbers for an id that is taken out of them.
_OUT = -(1 << 31)
# The names of the prompts, by whether there is a system and an input.
_GIVEN = {
    (False, False): "",
    (False, True): "input",
    (True, False): "system",
    (True, True): "system input",
}


@dataclass(frozen=True)
class Column:
    """A row's column as it is; `default` where a row may lack it."""

    name: str
    default: Any = None
    optional: bool = False

    def of(self, row: Row) -> Any:
        return self.default if self.optional and self.name not in row else row[self.name]

    def all(self, batch: Batch) -> list[Any]:
        """Of all rows of a batch; None for one that has not what others have."""
        found = batch.column(self.name)
        if self.optional and not any(found) and not any(self.name in row for row in batch.rows):
            return [self.default] * len(found)
        return found


@dataclass(frozen=True)
class Form:
    """A text with columns in it."""

    text: str
    names: tuple[str, ...]

    def of(self, row: Row) -> str:
        parts = {name: row[name] for name in self.names}
        if wrong := [name for name, value in parts.items() if not isinstance(value, str)]:
            raise TypeError(f"{wrong[0]} is no text")
        return self.text.format(**parts)

    def all(self, batch: Batch) -> list[str]:
        """Of all rows of a batch."""
        return list(map(self.of, batch.rows))


@dataclass(frozen=True)
class Layout:
    """What is read of a row, and the prompt by which of system and input are not empty."""

    columns: Mapping[str, Column | Form]
    prompts: Mapping[str, str]

    def texts(self, row: Row) -> tuple[str, Any]:
        """Prompt and answer. Raises KeyError for a column that is not there, and TypeError."""
        parts = {part: column.of(row) for part, column in self.columns.items()}
        given = _GIVEN[bool(parts.get("system")), bool(parts.get("input"))]
        return self.prompts[given].format(**parts), parts["output"]

    def all_texts(self, batch: Batch) -> tuple[list[str], list[str]] | None:
        """Prompts and answers of rows all of whose columns are texts; None where one may not be."""
        try:
            parts = {part: column.all(batch) for part, column in self.columns.items()}
        except (KeyError, TypeError):
            return None
        if set(map(type, itertools.chain.from_iterable(parts.values()))) - {str}:
            return None
        none = [""] * len(batch.rows)
        given = list(
            zip(*(map(bool, parts.get(p, none)) for p in ("system", "input")), strict=True)
        )
        made: dict[tuple[bool, bool], Iterator[str]] = {}
        for one in set(given):
            if not (pieces := self._pieces.get(_GIVEN[one])):
                return None
            mask = [other == one for other in given]
            filled = [
                itertools.compress(parts[name], mask) if name else itertools.repeat(text)
                for text, name in pieces
            ]
            made[one] = map("".join, zip(*filled, strict=False))
        return [next(made[one]) for one in given], parts["output"]

    @functools.cached_property
    def _pieces(self) -> Mapping[str, list[tuple[str, str]]]:
        """Each prompt as texts and names of parts in turn, where nothing but these is in it."""
        found = {}
        for given, prompt in self.prompts.items():
            parsed = list(string.Formatter().parse(prompt))
            if all(
                not (form or how) and name in (None, *self.columns) for _, name, form, how in parsed
            ):
                found[given] = [
                    piece
                    for text, name, _, _ in parsed
                    for piece in ((text, ""), ("", name or ""))
                    if any(piece)
                ]
        return found


def layout(kind: str | Mapping[str, Any]) -> Layout | None:
    """The layout of a data set's `type`, or None where it is not one of these."""
    if isinstance(kind, Mapping):
        return _user_defined(kind)
    known = upstream.instruct()["types"].get(kind)
    if known is None:
        return None
    columns = {part: _read(form, known["optional"]) for part, form in known["columns"].items()}
    return Layout(columns, known["prompts"])


def _read(form: str, optional: Sequence[str]) -> Column | Form:
    names = tuple(name for _, name, _, _ in string.Formatter().parse(form) if name)
    if form == "".join(f"{{{name}}}" for name in names[:1]) != "":
        return Column(names[0], "", names[0] in optional)
    return Form(form, names)


def _user_defined(kind: Mapping[str, Any]) -> Layout | None:
    said = upstream.instruct()["user_defined"] | {k: v for k, v in kind.items() if v is not None}
    system, full, bare = said["system_format"], said["format"], said["no_input_format"]
    try:  # each names what it is given, and nothing else
        system.format(system=""), full.format(instruction="", input=""), bare.format(instruction="")
    except (LookupError, ValueError, AttributeError):
        return None
    columns = {
        "instruction": Column(said["field_instruction"]),
        "input": Column(said["field_input"], "", optional=True),
        "output": Column(said["field_output"], "", optional=True),
        "system": Column(said["field_system"], said["system_prompt"], optional=True),
    }
    prompts = {"": bare, "input": full, "system": system + bare, "system input": system + full}
    return Layout(columns, prompts)


class Instruct:
    """Rows of a prompt and an answer."""

    def __init__(self, texts: Layout, backend: Backend, config: Mapping[str, Any]) -> None:
        self.layout, self.backend = texts, backend
        self.whole = bool(config.get("train_on_inputs"))
        self.limit = int(config["sequence_len"])
        self.after = backend.after

    def make(self, batch: Batch, tell: Tell) -> Made:
        import numpy as np

        texts = self._plain(batch) or list(self._texts(batch, tell))
        made = self.backend.encode(texts, special=True)
        self.backend.prove(texts, made, special=True)
        splits, eos, bos = made.splits, self.backend.loaded.eos_id, self.backend.loaded.bos_id
        sizes = np.diff(splits)
        answer = np.arange(len(texts)) % 2 == 1
        masks = np.where(answer | self.whole, np.int32(0), np.int32(-1))  # all bits: ~id
        numbers: Any = made.ids ^ np.repeat(masks, sizes)
        lengths = self._cut(numbers, texts, splits)
        filled = answer & (lengths > 0)
        ends, begins = splits[1:][filled] - 1, splits[:-1][filled]
        if not self.after:  # else what the tokenizer adds there stays
            ends -= (sizes - lengths)[filled]
        closed, begun = np.zeros((2, len(texts)), bool)
        closed[filled] = (made.ids[ends] != eos) & (lengths[filled] < self.limit)
        begun[filled] = made.ids[begins] == bos
        numbers[splits[:-1][begun]] = _OUT
        numbers = np.insert(numbers, splits[1:][closed], eos).astype(np.int32, copy=False)
        lengths += closed.astype(int) - begun
        if len(numbers) != lengths.sum():
            numbers = numbers[numbers != _OUT]
        rows = np.concatenate([[0], np.cumsum(lengths)[1::2]])
        return Made(numbers, rows, frozenset(() if eos is None else (eos,)))

    def _cut(self, numbers: Any, texts: Sequence[str], splits: Any) -> Any:
        """Takes out what an empty text has and what is over sequence_len. Returns the lengths."""
        import numpy as np

        lengths = np.diff(splits)
        empty = [i for i, text in enumerate(texts) if not text] if "" in texts else []
        for i in np.flatnonzero(lengths > self.limit):
            numbers[splits[i] + self.limit - self.after : splits[i + 1] - self.after] = _OUT
        for i in empty:
            numbers[splits[i] : splits[i + 1]] = _OUT
        lengths = np.minimum(lengths, self.limit)
        lengths[empty] = 0
        return lengths

    def _plain(self, batch: Batch) -> list[str] | None:
        """Prompts and answers in turn, where nothing of them is to be told."""
        found = self.layout.all_texts(batch)
        if found is None or (self.whole and "" in found[0]):
            return None
        texts = [text for pair in zip(*found, strict=True) for text in pair]
        try:
            "".join([text for text in texts if not text.isascii()]).encode()
        except UnicodeEncodeError:
            return None
        return texts

    def _texts(self, batch: Batch, tell: Tell) -> Any:
        for i, row in enumerate(batch.rows):
            try:
                prompt, answer = self.layout.texts(row)
            except KeyError as missing:
                what = f"it has no column {missing}; it has {', '.join(row)}"
                tell(BadRow(batch.where(i), "a column is missing", what))
                continue
            except TypeError as error:
                tell(BadRow(batch.where(i), "a column is no text", str(error)))
                continue
            answer = answer or ""
            if problem := self._problem(prompt, answer):
                tell(BadRow(batch.where(i), *problem))
                continue
            yield prompt
            yield answer

    def _problem(self, prompt: str, answer: Any) -> tuple[str, str] | None:
        if self.whole and not prompt:
            return "an empty prompt", "the prompt is empty, and it would be trained"
        if isinstance(answer, str) and answer.isascii() and prompt.isascii():
            return None
        return no_text(answer, "the answer") or no_text(prompt, "the prompt")
