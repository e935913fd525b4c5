"""docs/troubleshooting.md: exit codes, what the doctor finds, what is recognised of failures."""

import textwrap
from collections.abc import Iterator

from envtune.checks.doctor.table import AREAS, CODES
from envtune.errors import Exit
from envtune.failures.table import FAILURES
from envtune.reference import markdown

EXITS = {
    Exit.DONE: ("done and checked, or already done", ""),
    Exit.CONFIG: ("configuration, usage, or an output folder that cannot be written", "no"),
    Exit.DATA: ("the data", "no"),
    Exit.ACCESS: (
        "access to the model or the data: token, licence, a name that is not there",
        "no",
    ),
    Exit.MEMORY: ("memory of the GPU or the host", "no"),
    Exit.ARTIFACT: ("the trained weights failed their checks", "no"),
    Exit.BUDGET: ("`SFT_MAX_HOURS` or `SFT_MAX_USD` is used up; a checkpoint is committed", "no"),
    Exit.INTERRUPTED: ("interrupted by hand", "no"),
    Exit.STOPPED: ("stopped by SIGTERM; a checkpoint is committed", "yes, resumes"),
    Exit.DISK: ("the disk", "yes, resumes"),
    Exit.NETWORK: ("the network", "yes, resumes"),
    Exit.HARDWARE: ("a GPU, a link between GPUs, or a lost process", "yes, resumes"),
    Exit.BUG: ("a bug, or a failure that nothing recognises", "once"),
}


def text() -> str:
    """The page, in Markdown."""
    content = {
        "exits": [(str(int(code)), *EXITS[code]) for code in Exit],
        "areas": list(_areas()),
        "failures": [
            (f"{int(code)}: {EXITS[code][0]}", rows)
            for code in Exit
            if (rows := [(f.cause, _shown(f.example), f.fix) for f in FAILURES if f.exit == code])
        ],
    }
    return markdown.page("troubleshooting.md.j2", content)


def _shown(example: str) -> str:
    """The beginning of what a library says, as code."""
    return f"`{textwrap.shorten(example.replace('`', chr(39)), 120, placeholder=' ...')}`"


def _areas() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    for area, title in AREAS.items():
        found = {code: row for code, row in CODES.items() if code.startswith(f"D-{area}-")}
        yield (
            title,
            [
                (f"`{code}`", row.meaning, str(int(row.exit)) if row.exit else "", row.fix)
                for code, row in found.items()
            ],
        )
