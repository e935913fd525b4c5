"""What the end of a child's log tells."""

import errno
import re

import pytest

from envtune.errors import Exit, Problem, Refused, of_file
from envtune.failures.failure import Failure
from envtune.failures.table import FAILURES, recognise
from envtune.settings import upstream
from envtune.settings.own import OWN

TRACE = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    train()\n'
WARNED = "/opt/venv/lib/site.py:12: DeprecationWarning: `foo` is deprecated, use `bar`\n"


@pytest.mark.parametrize(
    ("tail", "exit_"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", Exit.MEMORY),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory", Exit.MEMORY),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: "
         "can't allocate memory: you tried to allocate 8589934592 bytes.", Exit.MEMORY),
        ("OSError: [Errno 12] Cannot allocate memory", Exit.MEMORY),
        ("MemoryError", Exit.MEMORY),
        pytest.param(TRACE + "MemoryError", Exit.MEMORY),
        pytest.param(TRACE + "torch.AcceleratorError: CUDA error: out of memory", Exit.MEMORY),
        ("OSError: [Errno 28] No space left on device: '/w/checkpoint-4'", Exit.DISK),
        ("NCCL WARN Error: failed to extend /dev/shm/nccl-abc to 9637892 bytes", Exit.CONFIG),
        ("RuntimeError: DataLoader worker (pid 9) is killed by signal: Bus error.", Exit.CONFIG),
        ("OSError: [Errno 122] Disk quota exceeded", Exit.DISK),
        ("safetensors_rust.SafetensorError: I/O error: No space left on device", Exit.DISK),
        ("torch.distributed.DistBackendError: NCCL error in: ../NCCLUtils.hpp:317", Exit.HARDWARE),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", Exit.HARDWARE),
        ("CUDA error: uncorrectable ECC error encountered", Exit.HARDWARE),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", Exit.HARDWARE),
        ("RuntimeError: Connection closed by peer [10.0.0.2]:4321", Exit.HARDWARE),
        ("RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error "
         "[10.0.0.2]:41870: Connection reset by peer.", Exit.HARDWARE),
        ("ConnectionError: ('Connection aborted.', ConnectionResetError(104, 'Connection reset by "
         "peer'))", Exit.NETWORK),
        ("RankLost: node 1 ended with code 1", Exit.HARDWARE),
        ("torch.distributed.DistStoreError: Timed out after 6 seconds waiting for clients. 1/2 "
         "clients joined.", Exit.NETWORK),
        ("ConnectionError: Tried to launch distributed communication on port `29500`, but another "
         "process is utilizing it.", Exit.CONFIG),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: x)", Exit.ACCESS),
        ("RepositoryNotFoundError: 401 Client Error.", Exit.ACCESS),
        ("botocore.exceptions.NoCredentialsError: Unable to locate credentials", Exit.ACCESS),
        ("google.auth.exceptions.DefaultCredentialsError: Your default credentials were not found.",
         Exit.ACCESS),
        pytest.param(TRACE + "PermissionError: Access Denied", Exit.ACCESS),
        pytest.param(TRACE + "PermissionError: Forbidden", Exit.ACCESS),
        ("botocore.exceptions.EndpointConnectionError: Could not connect to the endpoint URL",
         Exit.NETWORK),
        ("OfflineModeIsEnabled: Cannot reach https://huggingface.co", Exit.ACCESS),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't "
         "find them in the cached files.", Exit.ACCESS),
        ("requests.exceptions.ConnectionError: HTTPSConnectionPool: Max retries exceeded",
         Exit.NETWORK),
        ("httpx.ConnectError: [Errno -3] Temporary failure in name resolution", Exit.NETWORK),
        ("httpx.ReadTimeout: The read operation timed out", Exit.NETWORK),
        pytest.param(
            "socket.gaierror: [Errno -2] Name or service not known\n\nhuggingface_hub.errors."
            "LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub",
            Exit.NETWORK),
        ("pydantic_core._pydantic_core.ValidationError: 1 validation error for AxolotlInputConfig",
         Exit.CONFIG),
        ("  Value error, please set only one of gradient_accumulation_steps or batch_size",
         Exit.CONFIG),
        ("datasets.exceptions.DatasetGenerationError: An error occurred while generating",
         Exit.DATA),
        ("json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)", Exit.DATA),
        ("datasets.data_files.DataFilesNotFoundError: no file", Exit.DATA),
        pytest.param(WARNED + TRACE + "datasets.exceptions.DatasetGenerationError: bad row",
                     Exit.DATA),
        ("{'loss': 1.2}\n" + TRACE + "OSError: [Errno 28] No space left on device", Exit.DISK),
    ],
)  # fmt: skip
def test_a_failure_is_recognised_by_the_end_of_its_log(tail: str, exit_: Exit) -> None:
    found = recognise(tail)
    assert found is not None
    assert found.exit == exit_


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.cause)
def test_each_failure_is_told_by_its_own_row(failure: Failure) -> None:
    """Also behind a warning and a traceback, and no row before it takes it."""
    assert recognise(failure.example) is failure
    assert recognise(WARNED + TRACE + failure.example) is failure


def test_what_a_fix_names_is_a_setting() -> None:
    keys = set(upstream.axolotl()["fields"])
    for failure in FAILURES:
        for key in re.findall(r"\bAXOLOTL_([A-Z0-9_]+)", failure.fix):
            assert key.lower() in keys, failure
        for name in re.findall(r"\bSFT_[A-Z_]+", failure.fix):
            assert name in OWN, failure


def test_a_failure_is_told_on_one_line_that_fits_a_termination_message() -> None:
    for failure in FAILURES:
        line = f"{failure.cause}: {failure.example}; {failure.fix}"
        assert len(line.encode()) < 1024, failure
        assert not failure.cause.endswith("."), failure
        assert "\n" not in failure.cause + failure.fix, failure
    assert len(FAILURES) >= 60


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "{'loss': 1.2, 'epoch': 0.5}",
        TRACE + "KeyError: 'foo'",
        TRACE + "AssertionError",
        pytest.param(WARNED + TRACE + "KeyError: 'foo'"),
        pytest.param(TRACE + "KeyError: 'carbon dioxide'"),
        pytest.param("Loading /data/oxidation.jsonl\n" + TRACE + "IndexError: out of range"),
    ],
)  # fmt: skip
def test_an_unknown_failure_is_not_taken_for_a_known_one(tail: str) -> None:
    assert recognise(tail) is None


@pytest.mark.parametrize("message", ["two\nlines", "a\r\nb", "tab\there", " spaces  around "])
def test_a_problem_is_one_line(message: str) -> None:
    line = str(Problem("AXOLOTL_LORA_R", message))
    assert line.splitlines() == [line]
    assert line == " ".join(line.split())
    assert line.startswith("AXOLOTL_LORA_R: ")
    assert str(Problem("", message)) == " ".join(message.split())


def test_a_refusal_holds_every_problem_and_the_first_ones_exit_code() -> None:
    refused = Refused([Problem("A", "x", Exit.ACCESS), Problem("B", "y", Exit.DATA)])
    assert refused.exit == Exit.ACCESS
    assert str(refused) == "A: x\nB: y"


def test_the_codes_that_a_user_must_act_on_are_below_128_and_the_others_are_not() -> None:
    acted = {Exit.CONFIG, Exit.DATA, Exit.ACCESS, Exit.MEMORY, Exit.ARTIFACT, Exit.BUDGET}
    assert all(1 <= code <= 127 for code in acted)
    assert all(code >= 128 for code in Exit if code not in acted | {Exit.DONE})


@pytest.mark.parametrize(
    ("number", "exit_"),
    [(errno.ENOSPC, Exit.DISK), (errno.EDQUOT, Exit.DISK), (errno.EACCES, Exit.CONFIG)],
)
def test_a_file_that_cannot_be_written_is_told_by_its_reason(number: int, exit_: Exit) -> None:
    exited, line = of_file(OSError(number, "the reason", "/out/run.json"))
    assert exited == exit_
    assert line.startswith("/out/run.json: the reason")
