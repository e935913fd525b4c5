"""The verb that looks what ails this machine, or what is set on it."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence

from envtune import redaction
from envtune.checks.doctor import examine, subject
from envtune.checks.doctor.examine import Examined
from envtune.checks.doctor.table import Sign
from envtune.cli.console import show, width
from envtune.cli.termination import Result
from envtune.settings import sources

# A terminal that is narrower wraps by itself; a line that is longer is hard to read.
_WIDE = 80
_MARKS = {"problem": "PROBLEM", "warning": "warning", "well": "well", "skipped": "-"}
_INDENT = " " * 18


def doctor(args: argparse.Namespace) -> Result:
    """Tells what each check has seen, and ends with the code of the first problem."""
    inputs = sources.read(args.overrides)
    every = examine.examine(subject.read(inputs))
    text = _json(every) if args.json else report(every, width(sys.stdout) or _WIDE)
    show(redaction.redact(redaction.without_user(text), inputs.secrets))
    return examine.exit_of(every), _last_word(every)


def _last_word(every: Sequence[Examined]) -> str:
    codes = dict.fromkeys(sign.code for sign in examine.findings(every, "problem"))
    return f"envtune doctor found {', '.join(codes)}" if codes else ""


def report(every: Sequence[Examined], wide: int) -> str:
    """What was seen, a paragraph each, in lines of at most `wide` characters."""
    lines = [line for one in every for sign in one.seen for line in _told(one, sign, wide)]
    count = {state: len(list(examine.findings(every, state))) for state in _MARKS}
    ends = f"{_counted(count['problem'], 'problem')}, {_counted(count['warning'], 'warning')}"
    return "\n".join([*lines, "", f"{ends}; every code: docs/troubleshooting.md"])


def _told(one: Examined, sign: Sign, wide: int) -> Iterator[str]:
    head = f"{_MARKS[sign.state]:8}{sign.code:10}"
    text = f"{one.check.name}: {sign.evidence}"
    yield from _wrapped(text, head, wide)
    if sign.code:
        yield from _wrapped(f"fix: {sign.fix}", _INDENT, wide)


def _wrapped(text: str, head: str, wide: int) -> list[str]:
    return textwrap.wrap(
        "".join(c if c.isprintable() else " " for c in text),
        min(wide, 120),
        initial_indent=head,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' if number != 1 else ''}"


def _json(every: Sequence[Examined]) -> str:
    checks = [
        {
            "check": one.check.name,
            "state": sign.state,
            "code": sign.code or None,
            "evidence": sign.evidence,
            "fix": sign.fix or None,
            "exit": int(sign.exit),
            "seconds": None if one.seconds is None else round(one.seconds, 2),
        }
        for one in every
        for sign in one.seen
    ]
    return json.dumps({"exit": int(examine.exit_of(every)), "checks": checks}, indent=2)
