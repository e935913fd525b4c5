"""The names of lm_eval's tasks, read from its YAML files without an import of it.

Parsing its fourteen thousand files takes ten seconds and comes after hours of training;
the names alone take one, before it.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from envtune.errors import Problem
from envtune.files import read_bytes
from envtune.settings.spelling.nearest import nearest
from envtune.settings.typed import Settings

# A task, group or tag at the left margin, or a list of them: [a, b], or a line each.
_NAMED = re.compile(
    r"""^["']?(?:task|group|tag)["']?[ ]*:[ ]*
    (?:["']?(?P<one>[^\s"'\#\[\]{},][^"'\#\n]*)
    |\[(?P<flow>[^\]]*)\]
    |(?P<lines>[^\n]*(?:\n[ ]*-[ ][^\n]*)+))""",
    re.MULTILINE | re.VERBOSE,
)
_ITEM = re.compile(r"""(?:^|[\n,])[ ]*(?:-[ ]+)?["']?([^\s"'#:,\[\]-][^"'#:,\n]*)""")


def problems(settings: Settings) -> Iterator[Problem]:
    """Tasks that nobody knows, and a folder of tasks that is not there."""
    folder, asked = settings.own.get("SFT_EVAL_TASKS_PATH"), settings.own.get("SFT_EVAL_TASKS")
    if folder and folder.value and not os.path.isdir(folder.value):
        yield Problem(folder.name, f"{folder.value} is not a folder; name one with tasks as YAML")
        return
    if not asked or not asked.value:
        return
    known = names(Path(folder.value) if folder and folder.value else None)
    for task in asked.value:
        if task not in known:
            hint = nearest(task, known)
            what = f"{task!r} is no task of lm_eval{f'; did you mean {hint}?' if hint else ''}"
            yield Problem(asked.name, f"{what}; SFT_EVAL_TASKS_PATH names a folder of your own")


def names(own: Path | None = None) -> set[str]:
    """Every task, group and tag of the installed lm_eval, and of a folder of one's own."""
    spec = importlib.util.find_spec("lm_eval")
    roots = (
        [Path(root) / "tasks" for root in (spec.submodule_search_locations or ())] if spec else []
    )
    return {name for root in [*roots, *([own] if own else [])] for name in _under(root)}


def _under(root: Path) -> Iterator[str]:
    for folder, _, files in os.walk(root):
        for file in files:
            if "yaml" in file or "." not in file:  # files that others include have any name
                yield from _in(read_bytes(Path(folder, file)).decode(errors="replace"))


def _in(text: str) -> Iterator[str]:
    for found in _NAMED.finditer(text):
        if found["one"]:
            yield found["one"].strip()
        else:
            yield from map(str.strip, _ITEM.findall(found["flow"] or found["lines"]))
