"""Values inside of values: where each lies, and which paths say the same place."""

from collections.abc import Iterator, Mapping
from typing import Any

from envtune.settings.schema import Mismatch
from envtune.settings.typed import Path


def leaves(value: Any, path: Path) -> Iterator[Path]:
    """The paths of every scalar in a value."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path


def overlap(key: str, leaf: Path, taken: Mapping[tuple[str, Path], str]) -> str | None:
    """The variable of this layer that sets `leaf` or a part around it already."""
    ends = (taken.get((key, leaf[:length])) for length in range(len(leaf) + 1))
    return next(filter(None, ends), None)


def put(whole: Any, path: Path, value: Any) -> Any:
    """`whole` with `value` at `path`; lists grow by one at a time."""
    if not path:
        return value
    part, rest = path[0], path[1:]
    if isinstance(part, int):
        items = list(whole) if isinstance(whole, list) else []
        if part > len(items):
            raise Mismatch((), part, f"the next index, {len(items)}, first (no gap)")
        items[part : part + 1] = [put(items[part] if part < len(items) else None, rest, value)]
        return items
    names = dict(whole) if isinstance(whole, Mapping) else {}
    names[part] = put(names.get(part), rest, value)
    return names
