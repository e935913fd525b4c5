"""What happens when a run has ended: the container exits, stays, or its pod is ended.

A platform restarts a container that exits; only the pod's own end ends its bill. It is asked
for, read back, and asked for again until it is true or somebody stops the container.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envtune.errors import Exit, Problem, Refused
from envtune.machine import certificates, hardware, runpod
from envtune.machine.runpod import Pod
from envtune.resolve.config import Facts
from envtune.settings import paths, sources
from envtune.settings.own import OWN
from envtune.settings.own.place import MAX_USD, NOTIFY, ON_FAIL, ON_FINISH, PRICE
from envtune.settings.sources import SFT, Inputs
from envtune.settings.typed import Settings
from envtune.supervise import restarts
from envtune.supervise.signals import StopSignals
from envtune.supervise.stage import LOG

EXIT, IDLE, STOP, TERMINATE = "exit", "idle", "stop", "terminate"
_ADDRESS = re.compile(r"((slack|discord|ntfy)\+)?https?://[^\s/]+(/\S*)?\Z")
_OF_A_POD = (STOP, TERMINATE)
# Seconds: the first pause between two tries and the longest, and the wait for RunPod to
# say that it is done.
_PAUSE, _LONGEST, _READ_BACK = 2.0, 300.0, 30.0
_LOOK = 0.5


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """What cannot be done at the end here, told before the start."""
    here = runpod.this(facts.environ)
    if (address := settings.own.get(NOTIFY)) and address.layer != SFT:
        what = f"is a secret, which no file and no command line may hold; set {NOTIFY}, or a file"
        yield Problem(address.name, f"{what} of it alone as {NOTIFY}_FILE")
    elif address and not _ADDRESS.match(str(address.value)):
        yield Problem(NOTIFY, "is no address such as https://..., which is all that it may be")
    for name in (ON_FINISH, ON_FAIL):
        if settings.get(name) in _OF_A_POD and here is None:
            what = f"{settings.get(name)} needs RunPod's RUNPOD_POD_ID and RUNPOD_API_KEY"
            yield Problem(name, f"{what}, which are not set; use exit or idle")
    if settings.get(MAX_USD) and not settings.get(PRICE) and here is None:
        what = f"needs a price and this is no pod of RunPod's; set {PRICE} to what an hour costs"
        yield Problem(MAX_USD, what)


def warnings(settings: Settings, facts: Facts) -> Iterator[str]:
    """What may cost money after the end. Raises Refused where RunPod does not take the key."""
    here, ends = runpod.this(facts.environ), {settings.get(ON_FINISH), settings.get(ON_FAIL)}
    if here is not None and ends.intersection(_OF_A_POD):
        try:
            here.state()
        except runpod.Denied as error:
            what = f"may not end this pod: {error}; unset it for the pod's own, or use exit"
            raise Refused([Problem("RUNPOD_API_KEY", what, Exit.ACCESS)]) from error
        except (runpod.Refusal, runpod.Unreached) as error:
            yield f"RUNPOD_API_KEY: whether it may end this pod is not known: {error}"
    if facts.environ.get("RUNPOD_POD_ID") and settings.get(ON_FINISH) == EXIT:
        what = "RunPod restarts a container that exits and bills on; stop ends that"
        yield f"{ON_FINISH}: {what}"


def action(exit_: Exit, on_finish: str, on_fail: str | None, *, given_up: str = EXIT) -> str:
    """What to do after an end. Whoever stopped the container decides what comes next.

    `given_up` is what to do, unless told otherwise, after a failure that is not tried again.
    """
    if exit_ in (Exit.STOPPED, Exit.INTERRUPTED):
        return EXIT
    return on_finish if exit_ == Exit.DONE else on_fail or given_up


@dataclass(frozen=True)
class End:
    """How the container's work has ended; `folder` is the run's, where there is one."""

    exit: Exit
    message: str
    folder: Path | None


def act(end: End, arguments: Sequence[str], welcome: Callable[[], str], stops: StopSignals) -> None:
    """Does what the settings want after an end; returns when the container shall exit."""
    inputs, said = given(arguments)
    certificates.adopt(inputs.environ)
    last = _counted(end, inputs, said)
    if StopSignals.came:
        return  # whoever stopped it decides what comes next
    here = runpod.this(inputs.environ)
    over = restarts.is_open(last) or end.exit == Exit.BUDGET
    instead = _instead(inputs.environ) if over else EXIT
    on_finish = said.get(ON_FINISH, OWN[ON_FINISH].default)
    wanted = action(end.exit, on_finish, said.get(ON_FAIL), given_up=instead)
    if wanted in _OF_A_POD and here is None:
        LOG.error("%s: RunPod's variables do not tell what to end, and with which key", wanted)
        wanted = instead
    if wanted == IDLE:
        LOG.info("%s: idle\n%s", ON_FAIL if end.exit else ON_FINISH, welcome())
        _wait(stops, float("inf"))
    elif here is not None and wanted in _OF_A_POD:
        _end(here, wanted, stops)
    elif (seconds := restarts.pause(last)) and runpod.id_of(inputs.environ):
        LOG.info("the container exits in %.0f s, to be started again", seconds)
        _wait(stops, seconds)


def _counted(end: End, inputs: Inputs, said: Mapping[str, str]) -> restarts.Outcome:
    """The outcome of a start that a platform makes again, before a run too: RunPod does it at
    once and for ever."""
    if not hardware.started_by_init() or not (end.folder or runpod.id_of(inputs.environ)):
        return {}
    outputs, _ = paths.folders(said.get, inputs.environ)
    return restarts.Starts(end.folder or Path(outputs), inputs).end(end.exit, end.message)


def _instead(environ: Mapping[str, str]) -> str:
    """What ends the bill of a failure that no restart mends, or the restarts at least."""
    if runpod.this(environ) is not None:
        return STOP
    if not runpod.id_of(environ) or not hardware.started_by_init():
        return EXIT
    LOG.error(
        "pod %s STILL RUNS AND BILLS: RUNPOD_API_KEY is not set to stop it with; end it by hand: "
        "%s", runpod.id_of(environ), runpod.CONSOLE,
    )  # fmt: skip
    return IDLE


def given(arguments: Sequence[str]) -> tuple[Inputs, dict[str, str]]:
    """What was given as variables and arguments, and each setting of it as far as it can be
    read: the end has to come after a wrong configuration too."""
    try:
        inputs = sources.read(arguments)
        layers = sources.with_documents(inputs).layers
    except Refused:
        inputs = sources.read(arguments, files=False)
        layers = inputs.layers
    said = {e.name: e.text.strip() for layer in layers for e in layer.entries}
    allowed = OWN[ON_FINISH].node["enum"]
    return inputs, {
        n: text for n, text in said.items() if n not in (ON_FINISH, ON_FAIL) or text in allowed
    }


def _end(here: Pod, wanted: str, stops: StopSignals) -> None:
    """Stops or terminates the pod until RunPod says so too."""
    pause = _PAUSE
    LOG.info("pod %s: %s", here.id, wanted)
    while not stops.asked:
        try:
            (here.stop if wanted == STOP else here.terminate)()
            if _ended(here, stops):
                LOG.info("pod %s: RunPod confirms the %s", here.id, wanted)
                return
            why = "RunPod still calls it running"
        except runpod.TROUBLE as error:
            why = str(error)
        LOG.error(
            "pod %s STILL RUNS AND BILLS: %s; next try in %.0f s, or end it by hand: %s",
            here.id, why, pause, runpod.CONSOLE,
        )  # fmt: skip
        _wait(stops, pause)
        pause = min(2 * pause, _LONGEST)


def _ended(here: Pod, stops: StopSignals) -> bool:
    """Whether RunPod says within its time that the pod is not to run. Raises Unreached.

    It has taken the order. Where the key may not ask, the container exits: if it is started
    again after all, it asks for its end again.
    """
    deadline = time.monotonic() + _READ_BACK
    try:
        while here.runs():
            if stops.asked or time.monotonic() > deadline:
                return False
            _wait(stops, _LOOK)
    except (runpod.Denied, runpod.Refusal) as error:
        LOG.warning("pod %s: the order was taken and cannot be read back: %s", here.id, error)
    return True


def _wait(stops: StopSignals, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not stops.asked and time.monotonic() < deadline:
        time.sleep(min(_LOOK, seconds))
