"""What can go wrong: the exit codes, and a problem as it is told.

1-127 mean that the user must change something; 143 and 200-202 are worth a retry, which
resumes; 203 is a bug or a failure that nothing here recognises.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from envtune import files


class Exit(IntEnum):
    """Exit codes of every command, and of the container."""

    DONE = 0
    CONFIG = 1
    DATA = 3
    ACCESS = 4
    MEMORY = 5
    ARTIFACT = 6
    BUDGET = 7
    INTERRUPTED = 130
    STOPPED = 143
    DISK = 200
    NETWORK = 201
    HARDWARE = 202
    BUG = 203


# No reader wants more of a path or a name that has no end.
_LINE = 1000


@dataclass(frozen=True)
class Problem:
    """One thing that the user must know, on one line."""

    name: str
    message: str
    exit: Exit = Exit.CONFIG

    def __str__(self) -> str:
        line = f"{self.name}: {self.message}" if self.name else self.message
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(line.split()))
        return line if len(line) <= _LINE else f"{line[: _LINE - 3]}..."


class Refused(Exception):
    """Raised with every problem at once; the first one's exit code is the command's."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    @property
    def exit(self) -> Exit:
        return self.problems[0].exit

    @property
    def line(self) -> str:
        """Every problem on the one line that a caller passes on."""
        return "; ".join(map(str, self.problems))


class NothingSet(Refused):
    """Raised when not one key of Axolotl is set: somebody who wants to know what this is."""


# A volume that is full or does not answer; the next start may find it well.
_VOLUME = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO, errno.ETIMEDOUT)


def of_file(error: OSError) -> tuple[Exit, str]:
    """The exit code and the line of a file that could not be read or written."""
    said = f"{error.filename or 'a file'}: {error.strerror}"
    if error.errno in files.FULL and error.filename:
        said += f", {files.free(Path(os.fsdecode(error.filename))) or 0:,} bytes free"
    if error.errno in _VOLUME:
        return Exit.DISK, f"{said}; free space under SFT_OUTPUTS_DIR; the next start resumes"
    return Exit.CONFIG, said
