"""Two ranks train for real on the CPU: on one node, and on two nodes that share a volume."""

import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import stops
from tests.harness import (
    ROOT,
    Entrypoint,
    Result,
    Start,
    clean_environ,
    execute,
    free_port,
    kill,
    losses,
    metrics,
    read,
)

ADAPTER = Path("adapter") / "adapter_model.safetensors"
# Enough for a signal to land before the last, however late.
STEPS = 20
SHORT = {"AXOLOTL_MAX_STEPS": str(STEPS), "AXOLOTL_SAVE_STEPS": "50"}


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Path:
    """The folder of a run of two processes that nothing disturbed, and that were tried before."""
    entrypoint = Entrypoint(tmp_path_factory.mktemp("pair"), settings | SHORT)
    start = entrypoint.start(NPROC="2", SFT_SMOKE_DDP="true")
    result = start.wait()
    assert result.code == 0, result.err[-3000:]
    tried = result.err.index("smoke-ddp: passed: improvement ")
    assert "world size 2 (gloo)" in result.err[tried:]
    assert tried < result.err.index("train: loading the libraries")
    return start.only_run()


def _same(run: Path, reference: Path) -> None:
    """The losses, gradient norms, tokens and bytes of a run never stopped."""
    assert losses(run) == losses(reference)
    tokens = [[line["tokens"] for line in metrics(folder)] for folder in (run, reference)]
    assert tokens[0] == tokens[1]
    assert (run / ADAPTER).read_bytes() == (reference / ADAPTER).read_bytes()


def test_two_processes_learn_and_say_that_they_were_two(pair: Path, embedded: Path) -> None:
    values = [loss for _, loss, _ in losses(pair)]
    assert len(values) == STEPS
    assert sum(values[-3:]) < 0.6 * sum(values[:3])
    assert read(pair / "report.json")["world_size"] == 2
    base = AutoModelForCausalLM.from_pretrained(embedded / "tiny-llama")
    tuned = PeftModel.from_pretrained(base, pair / "adapter")
    learned = [p for name, p in tuned.named_parameters() if "lora_B" in name]
    assert learned and all(bool(p.any()) for p in learned)


def test_a_lost_rank_and_a_stop_end_both_processes_and_the_next_start_ends_bit_for_bit(
    entrypoint: Entrypoint, pair: Path, dice: random.Random
) -> None:
    start, which = entrypoint.start(**SHORT, NPROC="2"), dice.randrange(2)
    start.until_step(dice.randrange(2, 5))
    lost = _rank(start, which)
    kill(lost)
    result = start.wait()
    assert result.code == 202, result.err[-3000:]
    assert f"rank {which} (process {lost}) was ended by SIGKILL; the next" in result.lines[-1]
    assert not start.left_over()

    start = entrypoint.start(**SHORT, NPROC="2")
    start.until(lambda: stops.step(start) >= 6)
    start.signal()
    result = start.wait()
    assert result.code == 143, result.err[-3000:]
    assert not start.left_over()
    run = start.only_run()
    step = metrics(run)[-1]["step"]
    assert read(run / f"checkpoints/checkpoint-{step}/envtune.json")["step"] == step
    _same(entrypoint.train(**SHORT, NPROC="2"), pair)


class Nodes:
    """Two starts of the entrypoint that see one outputs folder and meet on loopback.

    They are told apart as the pods of a StatefulSet are. Node 0 comes `later` seconds later.
    """

    def __init__(self, entrypoint: Entrypoint, later: float = 0.0) -> None:
        more = {**SHORT, "NNODES": "2", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free_port()), "SFT_RENDEZVOUS_SECONDS": "900"}  # fmt: skip
        second = entrypoint.start(**more, POD_NAME="train-1")
        time.sleep(later)
        self.starts = [entrypoint.start(**more, POD_NAME="train-0"), second]

    def wait(self) -> list[Result]:
        results = [start.wait() for start in self.starts]
        assert not [pid for start in self.starts for pid in start.left_over()]
        return results

    def until_step(self, step: int) -> None:
        self.starts[0].until_step(step)


def _rank(start: Start, number: int) -> int:
    """The process of a start that is this rank: torchrun has told it so."""
    needle = f"RANK={number}".encode()
    for pid in start.left_over():
        with suppress(FileNotFoundError, ProcessLookupError):
            if needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
    raise AssertionError(start.commands())


def test_two_nodes_are_one_run_through_a_lost_rank_and_a_stop(
    entrypoint: Entrypoint, pair: Path, dice: random.Random
) -> None:
    """Each start goes on where the last one was; the end is that of one node's two ranks."""
    lost = Nodes(entrypoint, later=3.0)
    lost.until_step(1)
    kill(pid := _rank(lost.starts[1], 1))
    results = lost.wait()
    assert [result.code for result in results] == [202, 202], results[0].err[-2000:]
    line = f"rank 1 (process {pid}) was ended by SIGKILL on node 1; the next start resumes"
    assert all(line in result.lines[-1] for result in results), results[0].err[-2000:]

    stopped = Nodes(entrypoint)
    stopped.until_step(dice.randrange(3, 7))
    stopped.starts[dice.randrange(2)].signal()
    results = stopped.wait()
    assert [result.code for result in results] == [143, 143], results[1].err[-2000:]
    assert all("is committed" in result.err for result in results)

    ended = Nodes(entrypoint)
    results = ended.wait()
    assert [result.code for result in results] == [0, 0], results[0].err[-3000:]
    run = ended.starts[0].only_run()
    assert len(list(run.parent.glob("*-run*"))) == 1
    assert read(run / "report.json")["world_size"] == 2
    logs = entrypoint.folder / "logs" / run.name / "train"
    assert {path.name for path in logs.iterdir()} == {"run.log", "node1.log"}
    _same(run, pair)

    again = Nodes(entrypoint).wait()
    assert [result.code for result in again] == [0, 0]
    assert all("already done" in result.out for result in again)


@contextmanager
def _listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


SECOND = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1"}


def test_a_node_that_node_0_does_not_come_for_ends_as_a_failure_of_the_network(
    entrypoint: Entrypoint,
) -> None:
    result = entrypoint.run(**SECOND, MASTER_PORT="9", SFT_RENDEZVOUS_SECONDS="1")
    assert result.code == 201
    assert "node 0 (127.0.0.1:9) has not come within 1 s (SFT_RENDEZVOUS_SECONDS)" in result.err


def test_a_node_with_another_volume_is_told_so(entrypoint: Entrypoint) -> None:
    """Node 0 stands at the meeting point, and its run is nowhere to be seen."""
    with _listening() as port:
        result = entrypoint.run(**SECOND, MASTER_PORT=port, SFT_RENDEZVOUS_SECONDS="2")
    assert result.code == 1
    assert "mount the same volume there on every node" in result.err


def test_a_node_ends_with_what_node_0_has_ended_with_before_it_trained(
    entrypoint: Entrypoint,
) -> None:
    """Its own code, at once. The end of an earlier start tells nothing about the next one."""
    over = {"SFT_MAX_HOURS": "1e-9", "MASTER_PORT": "9"}
    second = entrypoint.start(**SECOND, **over, SFT_RENDEZVOUS_SECONDS="120")
    first = entrypoint.run(**{**SECOND, "NODE_RANK": "0"}, **over)
    assert first.code == 7, first.err
    result = second.wait()
    assert (result.code, result.lines[-1]) == (7, first.lines[-1])

    again = entrypoint.run(**SECOND, **over, SFT_RENDEZVOUS_SECONDS="2")
    assert again.code == 201, again.err


LATE = """
import sys, threading, time
from pathlib import Path
from envtune.supervise import nodes
from envtune.machine.rendezvous import Rendezvous
from tests.unit.supervise.test_ends import _context
hosts = Path("/etc/hosts")
add = lambda: hosts.write_text(hosts.read_text() + "127.0.0.1 node-0.late\\n")
threading.Timer(1.5, add).start()
context, began = _context(Path("run"), SFT_RENDEZVOUS_SECONDS=30), time.monotonic()
nodes.wait_for_host(context, Rendezvous(2, 1, "node-0.late"))
print(time.monotonic() - began)
"""


def test_a_name_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, str(hosts), sys.executable, "-c", LATE]
    done = execute(words, tmp_path, clean_environ(PYTHONPATH=str(ROOT)))
    if "unshare" in done.err:
        pytest.skip("no mount namespace can be made here")
    assert done.code == 0, done.err
    assert 1.4 < float(done.out) < 30  # its patience


def test_a_name_that_no_resolver_knows_is_waited_for_and_then_named(
    entrypoint: Entrypoint,
) -> None:
    first = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "node-0.invalid"}
    result = entrypoint.run(**first, SFT_RENDEZVOUS_SECONDS="1")
    assert result.code == 201
    assert "waiting for the name node-0.invalid" in result.err
    assert "MASTER_ADDR: node-0.invalid has no address after 1 s" in result.err


def test_a_second_node_that_never_comes_is_a_failure_of_the_network(
    entrypoint: Entrypoint,
) -> None:
    first = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    result = entrypoint.run(**first, MASTER_PORT=str(free_port()), SFT_RENDEZVOUS_SECONDS="2")
    assert result.code == 201, result.err[-3000:]
    assert "not every node came" in result.err
