"""What can go wrong, one table: the exit code, the pattern that tells it, the fix.

1-127 mean that the user must change something; 143 and 200-202 are worth a retry, which
resumes; 203 is a bug or a failure that nothing here recognises.
"""

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


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


@dataclass(frozen=True)
class Failure:
    """A way for a child to fail, told by the last lines of its log."""

    exit: Exit
    pattern: re.Pattern[str]
    cause: str
    fix: str


def _failure(exit: Exit, pattern: str, cause: str, fix: str) -> Failure:
    return Failure(exit, re.compile(pattern, re.IGNORECASE | re.MULTILINE), cause, fix)


# The first match counts, so the narrower patterns stand first.
FAILURES = (
    _failure(
        Exit.CONFIG,
        r"^envtune\S*\.NotLoaded\b",
        "the checkpoint cannot be loaded",
        "name another one in AXOLOTL_RESUME_FROM_CHECKPOINT, or unset it",
    ),
    _failure(
        Exit.ARTIFACT,
        r"^envtune\S*\.NotFinite\b",
        "the training has diverged",
        "lower AXOLOTL_LEARNING_RATE, or set AXOLOTL_MAX_GRAD_NORM; nothing of it is saved, and "
        "the same settings go on from the last whole checkpoint",
    ),
    _failure(
        Exit.MEMORY,
        r"torch\.(cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory",
        "the GPU's memory was not enough",
        "lower AXOLOTL_MICRO_BATCH_SIZE or AXOLOTL_SEQUENCE_LEN, or set "
        "AXOLOTL_GRADIENT_CHECKPOINTING=true",
    ),
    _failure(
        Exit.MEMORY,
        r"DefaultCPUAllocator: can't allocate memory|^MemoryError\b|Cannot allocate memory",
        "the host's memory was not enough",
        "give the container more memory or choose a smaller model",
    ),
    _failure(
        Exit.CONFIG,
        r"killed by signal: Bus error|failed to extend /dev/shm|No space left on device.*/dev/shm|"
        r"unable to (write to|open|mmap|allocate) .*(/torch_|shared memory)",
        "/dev/shm is too small",
        "start the container with --shm-size=8g, or set AXOLOTL_DATALOADER_NUM_WORKERS=0",
    ),
    _failure(
        Exit.DISK,
        r"No space left on device|Disk quota exceeded|ENOSPC|\[Errno 27\]|os error 27",
        "the disk is full",
        "free space under SFT_OUTPUTS_DIR; the next start resumes",
    ),
    _failure(
        Exit.DISK,
        r"\[Errno (5|116)\]|Input/output error|os error (5|116)\b",
        "the volume does not answer",
        "look after the volume under SFT_OUTPUTS_DIR; the next start resumes",
    ),
    _failure(
        Exit.NETWORK,
        r"DistStoreError: Timed out",
        "not every node came",
        "start each of NNODES with the same MASTER_ADDR and MASTER_PORT; they wait for each other "
        "for SFT_RENDEZVOUS_SECONDS",
    ),
    _failure(
        Exit.CONFIG,
        r"Tried to launch distributed communication on port|EADDRINUSE",
        "the port where the nodes meet is taken",
        "set MASTER_PORT to one that is free on node 0, the same on every node",
    ),
    _failure(
        Exit.HARDWARE,
        r"^RankLost\b|NCCL error|ncclInternalError|ncclSystemError|CUDA error|\bNVRM: Xid|"
        r"RendezvousTimeoutError|Connection closed by peer|gloo[/\w]*\.cc",
        "a GPU or the link between GPUs failed",
        "the next start resumes; if it comes back, use another machine",
    ),
    _failure(
        Exit.ACCESS,
        r"GatedRepoError|RepositoryNotFoundError|401 Client Error|403 Client Error",
        "the Hub refused access to the model or the data set",
        "set HF_TOKEN and accept the licence on the repository's page",
    ),
    _failure(
        Exit.ACCESS,
        r"(NoCredentials|PartialCredentials|DefaultCredentials)Error|InvalidAccessKeyId|"
        r"SignatureDoesNotMatch|^PermissionError: (Access Denied|Forbidden)",
        "the store refused access to the data",
        "set the keys that its client reads: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://",
    ),
    _failure(
        Exit.CONFIG,
        r"CERTIFICATE_VERIFY_FAILED",
        "a certificate is not trusted",
        "set SFT_CA_BUNDLE to a file with your company's certificates",
    ),
    _failure(
        Exit.NETWORK,
        r"ConnectionError|ConnectTimeout|ReadTimeout|Max retries exceeded|Name or service not "
        r"known|Temporary failure in name resolution",
        "the network failed",
        "the next start resumes",
    ),
    _failure(
        Exit.ACCESS,
        r"OfflineModeIsEnabled|LocalEntryNotFoundError|couldn't connect to .* to load|"
        r"Can't load the (configuration|tokenizer|model|feature extractor)|"
        r"is not a local folder and is not a valid model identifier",
        "a file of the model or data set is neither local nor in the cache",
        "unset HF_HUB_OFFLINE, or give a local folder",
    ),
    _failure(
        Exit.CONFIG,
        r"pydantic_core\._pydantic_core\.ValidationError|validation errors? for AxolotlInputConfig"
        r"|^\s*Value error, |^DeprecationWarning: ",
        "Axolotl refused the configuration",
        "see the line above; `envtune check` shows where each value came from",
    ),
    _failure(
        Exit.DATA,
        r"^envtune\S*\.NothingToLearn\b",
        "nothing would be learned",
        "the type of the data says which parts of a row are; see the rows that are shown",
    ),
    _failure(
        Exit.CONFIG,
        r"^envtune\S*\.OtherOrder\b",
        "the checkpoint was made with other batches",
        "name another checkpoint or none in AXOLOTL_RESUME_FROM_CHECKPOINT, or go on all the same "
        "with SFT_RESUME_FORCE=true",
    ),
    _failure(
        Exit.DATA,
        r"^envtune\S*\.RanksDiffer\b",
        "the processes would train different batches",
        "mount the same data on every node",
    ),
    _failure(
        Exit.DATA,
        r"no label holds the end of a turn",
        "no answer would learn to stop",
        "name the template's end of a turn in AXOLOTL_EOT_TOKENS, or choose a template that ends "
        "a turn with the tokenizer's own end of a text",
    ),
    _failure(
        Exit.DATA,
        r"datasets\.exceptions\.|DatasetGenerationError|JSONDecodeError|"
        r"zero[- ]length|Empty dataset|DataFilesNotFoundError",
        "the data could not be read",
        "check the rows against the data set's type",
    ),
)


# Python's words for a wrong value. Before the first step they mean the configuration, or
# the data while the data is read: the same start would fail again.
_WRONG_VALUE = re.compile(
    r"^(ValueError|KeyError|TypeError|AssertionError|FileNotFoundError|NotImplementedError|"
    r"ImportError|ModuleNotFoundError)\b"
)
_BEFORE_TRAINING = {"starting": Exit.CONFIG, "data": Exit.DATA, "model": Exit.CONFIG}


def wrong_value(error: str, phase: str) -> Exit | None:
    """The exit code of an exception that is the user's to mend, or None."""
    return _BEFORE_TRAINING.get(phase) if _WRONG_VALUE.match(error) else None


def gist(error: str) -> str:
    """An exception's text on one line; of a pydantic report only what it complains of."""
    said = re.findall(r"(?:Value error, )?(\S[^\n]*?) \[type=", error)
    return " ".join("; ".join(said or [error]).split())


# A volume that is full or does not answer; the next start may find it well.
_VOLUME = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO, errno.ETIMEDOUT)


def of_file(error: OSError) -> tuple[Exit, str]:
    """The exit code and the line of a file that could not be read or written."""
    said = f"{error.filename or 'a file'}: {error.strerror}"
    if error.errno in _VOLUME:
        return Exit.DISK, f"{said}; free space under SFT_OUTPUTS_DIR; the next start resumes"
    return Exit.CONFIG, said


def recognise(text: str) -> Failure | None:
    """The failure that a log's last lines tell of, or None."""
    return next((f for f in FAILURES if f.pattern.search(text)), None)
