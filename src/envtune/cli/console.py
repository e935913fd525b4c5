"""The console of whoever started the command: what is printed and logged there."""

import logging
import os
import sys
import unicodedata
from collections.abc import Mapping
from typing import TextIO

from envtune import redaction
from envtune.resolve.config import Configuration

LOG = logging.getLogger("envtune")
_DIRECTIONS = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Discreet(logging.Formatter):
    """Writes no line and no traceback with a secret of `environ`'s in it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.environ = environ

    def format(self, record: logging.LogRecord) -> str:
        return self.clean(super().format(record))

    def clean(self, text: str) -> str:
        return redaction.redact(text, redaction.secrets(self.environ))


def show(text: str) -> None:
    """Prints; a reader that has gone away changes nothing about the run."""
    try:
        print(text, flush=True)
    except (BrokenPipeError, AttributeError, ValueError):
        sys.stdout = None  # nothing is left to flush at exit


def harmless(text: str) -> str:
    """A text of anybody's as a terminal shows it: what it would obey is spelled out."""
    return "".join(c if _is_shown(c) else ascii(c)[1:-1] for c in text)


def _is_shown(c: str) -> bool:
    """Controls are obeyed, halves of letters cannot be written, and marks of direction show other
    words than are there; the other invisible ones join letters and pictures."""
    return c in "\n\t" or not (unicodedata.category(c) in ("Cc", "Cs") or c in _DIRECTIONS)


def width(stream: TextIO | None) -> int | None:
    """The terminal's width, or None where the stream is closed or none."""
    if stream is None or not stream.isatty():
        return None
    return os.get_terminal_size(stream.fileno()).columns


def warn(made: Configuration) -> None:
    """Logs what a configuration has to tell, at the level that it asks for."""
    LOG.setLevel(made.config.setting("SFT_LOG_LEVEL"))
    for level, lines in (
        (logging.INFO, made.config.notes),
        (logging.WARNING, made.config.warnings),
    ):
        for line in lines:
            LOG.log(level, "%s", redaction.redact(line, made.inputs.secrets))
