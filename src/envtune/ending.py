"""What happens when a run has ended: the container exits, stays, or its pod is ended.

A platform restarts a container that exits; only the pod's own end ends its bill. It is asked
for, read back, and asked for again until it is true or somebody stops the container.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from envtune import pod, sources, trust
from envtune.contract import OWN
from envtune.contract.place import MAX_USD, ON_FAIL, ON_FINISH, PRICE
from envtune.errors import Exit, Problem, Refused
from envtune.pod import Pod
from envtune.settings import Settings
from envtune.stage import LOG
from envtune.stops import StopSignals

EXIT, IDLE, STOP, TERMINATE = "exit", "idle", "stop", "terminate"
_OF_A_POD = (STOP, TERMINATE)
# Seconds: the first pause between two tries and the longest, and the wait for RunPod to
# say that it is done.
_PAUSE, _LONGEST, _READ_BACK = 2.0, 300.0, 30.0
_LOOK = 0.5


def problems(settings: Settings, environ: Mapping[str, str]) -> Iterator[Problem]:
    """What cannot be done at the end here, told before the start."""
    here = pod.this(environ)
    for name in (ON_FINISH, ON_FAIL):
        if settings.get(name) in _OF_A_POD and here is None:
            what = f"{settings.get(name)} needs RunPod's RUNPOD_POD_ID and RUNPOD_API_KEY"
            yield Problem(name, f"{what}, which are not set; use exit or idle")
    if settings.get(MAX_USD) and not settings.get(PRICE) and here is None:
        what = f"needs a price and this is no pod of RunPod's; set {PRICE} to what an hour costs"
        yield Problem(MAX_USD, what)


def warnings(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """What may cost money after the end. Raises Refused where RunPod does not take the key."""
    here, ends = pod.this(environ), {settings.get(ON_FINISH), settings.get(ON_FAIL)}
    if here is not None and ends.intersection(_OF_A_POD):
        try:
            here.state()
        except pod.Denied as error:
            what = f"may not end this pod: {error}; unset it for the pod's own, or use exit"
            raise Refused([Problem("RUNPOD_API_KEY", what, Exit.ACCESS)]) from error
        except (pod.Refusal, pod.Unreached) as error:
            yield f"RUNPOD_API_KEY: whether it may end this pod is not known: {error}"
    if environ.get("RUNPOD_POD_ID") and settings.get(ON_FINISH) == EXIT:
        what = "RunPod restarts a container that exits and bills on; stop ends that"
        yield f"{ON_FINISH}: {what}"


def action(exit_: Exit, on_finish: str, on_fail: str | None, *, on_pod: bool) -> str:
    """What to do after an end. Whoever stopped the container decides what comes next."""
    if exit_ in (Exit.STOPPED, Exit.INTERRUPTED):
        return EXIT
    if exit_ == Exit.DONE:
        return on_finish
    limit = exit_ == Exit.BUDGET and on_pod
    return on_fail or (STOP if limit else EXIT)


def act(
    exit_: Exit, arguments: Sequence[str], welcome: Callable[[], str], stops: StopSignals
) -> None:
    """Does what the settings want after an end; returns when the container shall exit."""
    given, environ = _given(arguments)
    trust.adopt(environ)
    here = pod.this(environ)
    on_finish = given.get(ON_FINISH, OWN[ON_FINISH].default)
    wanted = action(exit_, on_finish, given.get(ON_FAIL), on_pod=here is not None)
    if wanted == IDLE:
        LOG.info("%s: idle\n%s", ON_FAIL if exit_ else ON_FINISH, welcome())
        _wait(stops, float("inf"))
    elif wanted in _OF_A_POD and here is not None:
        _end(here, wanted, stops)
    elif wanted != EXIT:
        LOG.error("%s: this is no pod of RunPod's; the container exits", wanted)


def _given(arguments: Sequence[str]) -> tuple[dict[str, str], Mapping[str, str]]:
    """The two settings, as far as they can be read: the end has to come after a wrong
    configuration too."""
    try:
        inputs = sources.with_documents(sources.read(arguments))
    except Refused:
        inputs = sources.read(arguments, files=False)
    said = {e.name: e.text.strip() for layer in inputs.layers for e in layer.entries}
    allowed = OWN[ON_FINISH].node["enum"]
    return {n: said[n] for n in (ON_FINISH, ON_FAIL) if said.get(n) in allowed}, inputs.environ


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
        except pod.TROUBLE as error:
            why = str(error)
        LOG.error(
            "pod %s STILL RUNS AND BILLS: %s; next try in %.0f s, or end it by hand: %s",
            here.id, why, pause, pod.CONSOLE,
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
    except (pod.Denied, pod.Refusal) as error:
        LOG.warning("pod %s: the order was taken and cannot be read back: %s", here.id, error)
    return True


def _wait(stops: StopSignals, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not stops.asked and time.monotonic() < deadline:
        time.sleep(min(_LOOK, seconds))
