"""What the run is given: the model's config.json and a sample of each data file.

Reads little, so that the fast check stays fast. Data that is local but unusable is a fact
too (`problem`): the checks turn it into a line for the user.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import modelfiles
from envtune.data import lengths, shapes
from envtune.data.batches import BadRow
from envtune.data.reading import formats
from envtune.resolve.plan import rows as plan_rows
from envtune.resolve.plan.rows import Lengths
from envtune.settings.paths import near_file

# What the datasets library calls what reads rows.
READERS = tuple(dict.fromkeys(formats.BY_SUFFIX.values()))
_LINE_LIMIT = 1 << 20
# Rows are counted in files of up to so many bytes.
_COUNTED = 1 << 24
# Bytes of a token of English prose, and tokens of a template around a row.
_TOKEN_BYTES, _TEMPLATE = 4, 8


@dataclass(frozen=True)
class ModelFacts:
    """The base model. `config` is its config.json, empty where it could not be read; `parameters`
    are those of its safetensors, None where nobody has counted."""

    path: str
    local: bool
    config: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None

    @property
    def context(self) -> int | None:
        """The longest sequence in tokens that the model was made for."""
        value = self.config.get("max_position_embeddings")
        return value if isinstance(value, int) else None


@dataclass(frozen=True)
class TokenizerFacts:
    """A tokenizer in a folder: what ends a text, the words that are never cut, its template."""

    eos: str
    words: frozenset[str] = frozenset()
    template: str = ""


@dataclass(frozen=True)
class DataFacts:
    """One data set. `columns` of its first row; `ds_type` as Axolotl names it; `lengths` of its
    rows by their text."""

    path: str
    local: bool
    columns: tuple[str, ...] = ()
    ds_type: str | None = None
    problem: str = ""
    lengths: Lengths | None = None


def read_model(path: str) -> ModelFacts:
    """The model's facts. What is wrong with its files is for `access` to tell."""
    if not path.startswith("/"):
        return ModelFacts(path, local=False)
    try:
        config = modelfiles.read_json(Path(path) / "config.json")
    except (OSError, ValueError):
        return ModelFacts(path, local=True)
    return ModelFacts(path, True, config, modelfiles.parameters(Path(path)))


def read_tokenizer(path: str) -> TokenizerFacts | None:
    """The tokenizer of a folder, or None where its files do not tell."""
    folder = Path(path)
    if not path.startswith("/"):
        return None
    try:
        told = modelfiles.read_json(folder / "tokenizer_config.json")
        words = _never_cut(files.head(folder / "tokenizer.json", _LINE_LIMIT))
        template = folder / "chat_template.jinja"
        source = files.read_text(template) if template.exists() else told.get("chat_template")
    except (OSError, ValueError):
        return None
    return _tokenizer(told, words, source)


def told_tokenizer(told: Mapping[str, Any]) -> TokenizerFacts | None:
    """The tokenizer of a tokenizer_config.json, or None where that does not name its tokens."""
    added = told.get("added_tokens_decoder")
    if not isinstance(added, dict) or not all(isinstance(one, dict) for one in added.values()):
        return None
    words = frozenset(str(one.get("content")) for one in added.values())
    return _tokenizer(told, words, told.get("chat_template"))


def _tokenizer(told: Mapping[str, Any], words: frozenset[str], template: Any) -> TokenizerFacts:
    eos = told.get("eos_token")
    text = eos.get("content") if isinstance(eos, dict) else eos
    return TokenizerFacts(str(text or ""), words, template if isinstance(template, str) else "")


def _never_cut(head: bytes) -> frozenset[str]:
    """The added tokens of a tokenizer.json: they precede its vocabulary. Raises ValueError."""
    text = head.decode(errors="replace")
    start = text.index("[", text.index('"added_tokens"'))
    found, _ = json.JSONDecoder().raw_decode(text, start)
    return frozenset(str(token["content"]) for token in found)


def read_data(datasets: Sequence[Mapping[str, Any]]) -> tuple[DataFacts, ...]:
    """The facts of each data set in order."""
    return tuple(_read_one(dataset) for dataset in datasets)


def _read_one(dataset: Mapping[str, Any]) -> DataFacts:
    path = str(dataset.get("path") or "")
    if not path:
        told = f"a data set has no path ({', '.join(dataset) or 'nothing'}): name a file, a folder"
        return DataFacts(path, local=False, problem=f"{told}, a URL or a repository")
    if not path.startswith("/"):
        return DataFacts(path, local=False)
    kind = file_type(path)
    try:
        found, row = first_row(path)
    except BadRow as bad:
        return DataFacts(path, True, ds_type=kind, problem=str(bad))
    except FileNotFoundError:
        return DataFacts(path, True, problem=f"{path} is not there{near_file(path)}")
    except OSError as error:
        return DataFacts(path, True, problem=f"{path} cannot be read: {error.strerror}")
    if not found:
        return DataFacts(path, True, ds_type=kind, problem=f"{path} is empty")
    if (name := shapes.wrapped(row)) and not dataset.get("field_messages"):
        what = f"{path} is one object that holds its rows under {name}"
        fix = f"save that list alone as the file: jq -c '.{name}[]' IN > OUT.jsonl"
        return DataFacts(path, True, ds_type=kind, problem=f"{what}; {fix}")
    return DataFacts(path, True, tuple(map(str, shapes.shaped(row))), kind, lengths=_lengths(path))


def _lengths(path: str) -> Lengths | None:
    """Rows' lengths by their bytes of text: exact ones are the preparation's."""
    sizes, rows = lengths.measure(path)
    told = f"about, by {_TOKEN_BYTES} bytes of text a token"
    found = [size // _TOKEN_BYTES + _TEMPLATE for size in sizes]
    return plan_rows.of(found, rows, told) if found else None


def first_row(path: str) -> tuple[bool, Mapping[str, Any]]:
    """Whether a file or a folder has rows, and its first one. Raises BadRow, OSError.

    What has no name of rows is read as Axolotl reads it, and has no columns that are known.
    """
    if not os.path.isdir(path) and file_type(path) is None and formats.is_unknown(path):
        return bool(files.head(Path(path), 1)), {}
    bad: list[BadRow] = []
    for file in formats.members(path):
        for _, row in formats.rows(file, tell=bad.append):
            return True, row
    if bad:
        raise bad[0]
    return False, {}


def file_type(path: str) -> str | None:
    """How the rows of a file are written, by its name, as Axolotl names it."""
    return formats.kind_of(path)


def count_rows(data: DataFacts, enough: int) -> int | None:
    """How many rows a local file of JSON lines or a short JSON list has, `enough` at most; None
    where that is not told in a moment."""
    target = Path(data.path)
    if not data.local or data.problem or data.ds_type != "json" or not target.is_file():
        return None
    if target.stat().st_size > _COUNTED:
        return None
    content = target.read_bytes()
    if content.lstrip().startswith(b"["):
        try:
            return min(len(json.loads(content)), enough)
        except (ValueError, RecursionError):
            return None
    return min(sum(1 for line in content.splitlines() if line.strip()), enough)
