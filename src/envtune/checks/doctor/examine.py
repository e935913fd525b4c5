"""Asks every check of the doctor at once, each with a time of its own.

A check that hangs or fails is a finding too. Those that start children do so in the main thread,
where a stop ends them; the others are left behind when they hang.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from envtune.checks.doctor import allreduce, gpus, network, place, wanted
from envtune.checks.doctor.subject import Subject
from envtune.checks.doctor.table import Sign, found, problem
from envtune.errors import Exit, Refused

Look = Callable[[Subject], Iterable[Sign]]
# A volume or a name server that is slow and well answers in less, seconds.
_PATIENCE = 30.0


@dataclass(frozen=True)
class Check:
    """One of the doctor's. `seconds` is how long it may take; `starts` says that it has children
    and a deadline of its own."""

    name: str
    look: Look
    seconds: float = _PATIENCE
    starts: bool = False


@dataclass
class Examined:
    """A check and what it has seen so far, with the seconds that it took."""

    check: Check
    signs: list[Sign] = field(default_factory=list)
    seconds: float | None = None

    def run(self, subject: Subject) -> None:
        started = time.monotonic()
        seen: list[Sign] = []
        try:
            seen += self.check.look(subject)
        except Refused as refused:
            seen += [problem("D-CFG-01", told) for told in refused.problems]
        except Exception as error:  # whatever it is, the other checks count
            seen.append(found("D-DOC-02", f"{type(error).__name__}: {error}"))
        self.signs, self.seconds = seen, time.monotonic() - started

    @property
    def seen(self) -> list[Sign]:
        """What it saw, or that it has not come back."""
        if self.seconds is not None:
            return list(self.signs)
        return [found("D-DOC-01", f"no answer in {self.check.seconds:.0f} s")]


CHECKS = (
    Check("mounts", place.mounted),
    Check("folders", place.folders),
    Check("shared memory", place.shared_memory),
    Check("disk", place.disk),
    Check("memory", place.memory),
    Check("GPUs", gpus.gpus),
    Check("all-reduce", allreduce.processes, starts=True),
    Check("nodes", network.nodes),
    Check("proxy", network.proxies),
    Check("certificates", network.trust),
    Check("Hub", network.the_hub),
    Check("clock", network.clock),
    Check("access", wanted.repositories_of, seconds=60.0),
    Check("trackers", wanted.tracked),
    Check("data", wanted.rows),
    Check("settings", wanted.settings),
)


def examine(subject: Subject, checks: Sequence[Check] = CHECKS) -> list[Examined]:
    """What each check has seen, in their order."""
    every = [Examined(check) for check in checks]
    started = time.monotonic()
    threads = {id(one): _begun(one, subject) for one in every if not one.check.starts}
    for one in every:
        if one.check.starts:
            one.run(subject)
    for one in every:
        if thread := threads.get(id(one)):
            thread.join(max(0.0, started + one.check.seconds - time.monotonic()))
    return every


def _begun(one: Examined, subject: Subject) -> threading.Thread:
    thread = threading.Thread(target=one.run, args=(subject,), daemon=True)
    thread.start()
    return thread


def findings(every: Iterable[Examined], state: str) -> Iterator[Sign]:
    """The signs of a state: problem, warning, well or skipped."""
    return (sign for one in every for sign in one.seen if sign.state == state)


def exit_of(every: Iterable[Examined]) -> Exit:
    """0 where no start would end for what is found, else the code of the first that one would."""
    return next((sign.exit for sign in findings(every, "problem")), Exit.DONE)
