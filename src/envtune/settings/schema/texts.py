"""How a text may be read: as JSON, as a list with commas, as one of several scalars."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from envtune.settings.schema.mismatch import Mismatch

_TRUE = {"true", "yes", "on"}
_FALSE = {"false", "no", "off"}
_NULL = {"null", "none", "~"}

# Half a character, or a byte that is no UTF-8: neither can be written to a file.
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_null(stripped: str) -> bool:
    """Whether a text spells null, where null is allowed."""
    return stripped.lower() in _NULL


def is_utf8(value: Any) -> bool:
    """Whether every text in a value can be written to a file."""
    return not any(map(_SURROGATE.search, _texts(value)))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (*_texts(name), *_texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def looks_like_json(stripped: str, kinds: set[str]) -> bool:
    """Whether a text is JSON or a slip of it. `{a,b}.jsonl` is text where no object may be."""
    if stripped.startswith("{") and "string" in kinds:
        return bool(kinds & {"object", "any"})
    return stripped.startswith(("[", "{")) and bool(kinds & {"array", "object", "any"})


def scalars(stripped: str, kinds: set[str]) -> list[Any]:
    """The readings of a text, the narrowest first; which one holds is the node's to say."""
    readings: list[Any] = []
    if stripped.lower() in _TRUE | _FALSE:
        readings.append(stripped.lower() in _TRUE)
    elif stripped in ("0", "1") and not kinds & {"integer", "number"}:
        readings.append(stripped == "1")
    for number in (int, float):
        try:
            readings.append(number(stripped))
        except ValueError:
            continue
    return [*readings, stripped]


def commas(text: str) -> list[str]:
    """The parts of a list that is separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_json(text: str, allowed: str) -> Any:
    """The value that a text is in JSON. Raises Mismatch, which tells what is `allowed`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as error:
        raise Mismatch((), text, allowed, f"not JSON: {error}{_slip(text)}") from None
    except RecursionError:
        raise Mismatch((), text, allowed, "nested too deeply") from None


def _slip(text: str) -> str:
    """What an editor, a shell or Python made of JSON, in words; nothing where it cannot be told."""
    if set(text) & set("“”„‘’"):  # noqa: RUF001  # what an editor makes of quotes
        return "; it has an editor's curly quotes"
    if '\\"' in text and '"' not in text.replace('\\"', ""):
        return "; its quotes have backslashes before them: take those out"
    return '; write its quotes as "' if "'" in text and '"' not in text else ""


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
