"""smoke-ddp trains for real, with the flags and the lines that it is known by."""

import re
import signal
import sys
from pathlib import Path

import pytest

from tests import stops
from tests.harness import ROOT, Entrypoint, clean_environ, envtune, execute, kill

FLAGS = [
    "--epochs", "2", "--batch", "256", "--samples", "4096", "--features", "128", "--classes", "4",
    "--lr", "3e-3", "--seed", "42",
]  # fmt: skip
RESULT = re.compile(
    r"\[RESULT\] improvement ([\d.]+)% \(loss ([\d.]+) -> ([\d.]+)\), ([\d.]+) s, all-reduce "
    r"(.+), world size (\d+) \(gloo\), ranks agree"
)


def test_two_processes_learn_agree_and_tell_how_fast_they_reach_each_other(tmp_path: Path) -> None:
    message = tmp_path / "termination"
    environ = clean_environ(TERMINATION_LOG_FILE=str(message))
    done = envtune("smoke-ddp", *FLAGS, "--nproc", "2", cwd=tmp_path, environ=environ)
    assert done.code == 0, done.err
    for mark in ("STEP", "DDP", "DATA", "MODEL", "TRAIN", "EPOCH", "RESULT", "DONE"):
        assert f"[{mark}]" in done.err, mark
    [told] = RESULT.findall(done.err)
    assert float(told[0]) > 30
    assert float(told[2]) < 0.7 * float(told[1])
    assert float(told[4].removesuffix(" GB/s")) > 0
    assert told[5] == "2"
    assert {f"[DDP] rank {rank} of 2" in done.err for rank in (0, 1)} == {True}
    assert message.read_text().startswith("smoke-ddp: passed: improvement ")
    assert list(tmp_path.iterdir()) == [p for p in tmp_path.iterdir() if "termination" in p.name]


def test_a_killed_rank_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    start = Entrypoint(tmp_path).start("envtune", "smoke-ddp", "--nproc=2", "--epochs=1000000")
    start.until_said("[EPOCH] 1 of ")
    ranks = [pid for pid, line in stops.commands(start).items() if _is_rank(pid, line)]
    assert len(ranks) == 2
    kill(ranks[1], signal.SIGKILL)
    result = start.wait()
    assert result.code == 202, result.err
    assert re.search(rf"rank \d \(process {ranks[1]}\) was ended by SIGKILL", result.err)
    assert start.gone()


def _is_rank(pid: int, line: bytes) -> bool:
    told = Path(f"/proc/{pid}/environ").read_bytes()
    return b"envtune.engine.smoke_ddp" in line and b"\0LOCAL_RANK=" in told


def test_ranks_that_torchrun_started_are_its_ranks(tmp_path: Path) -> None:
    verb = str(ROOT / ".venv" / "bin" / "envtune")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
                "--local-addr=127.0.0.1", "--no-python"]  # fmt: skip
    environ = clean_environ(GLOO_SOCKET_IFNAME="lo")
    done = execute([*torchrun, verb, "smoke-ddp", *FLAGS], tmp_path, environ)
    assert done.code == 0, done.err
    [told] = RESULT.findall(done.err)
    assert told[5] == "2"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--lr", "0"], 6, "smoke-ddp: the loss did not improve"),
        (["--epochs", "0"], 1, "argument --epochs: invalid number above 0 value: '0'"),
        (["--backend", "nccl", "--nproc", "2"], 1, "--nproc: 2 processes over NCCL need as many"),
    ],
)
def test_what_does_not_pass_is_no_success(
    words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    environ = clean_environ(SFT_DEVICE="cpu")
    done = envtune("smoke-ddp", *words, cwd=tmp_path, environ=environ)
    assert (done.code, said in done.err) == (code, True), done.err
