"""vLLM as a child: started on what was checked before, ready once it has answered, drained.

vLLM 0.32 calls itself healthy before its engine has worked, and swallows a SIGTERM while
it starts: both are seen to here.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from envtune import files, venvs
from envtune.errors import Exit, Problem, Refused
from envtune.failures.table import recognise
from envtune.machine import hardware, ports
from envtune.render import launch
from envtune.render.launch import LaunchPlan
from envtune.serve import access, guard, health, vllm_config
from envtune.serve.api import Api, reason
from envtune.serve.models import Served
from envtune.settings.own import SERVE_FLAG, SERVE_FLAGS
from envtune.supervise import process
from envtune.supervise.process import Beside
from envtune.supervise.stage import LOG, Context, Ended, stop_exit

# Seconds between two questions to a server that starts, two lines about it, two SIGTERMs.
_ASK, _TELL, _AGAIN = 0.5, 30.0, 2.0
# Seconds for the last bytes of an answer after the port is closed.
_FLUSH = 3.0
_FIRST = "Is it all right that this is the first thing that anybody asks?"
_ANYWHERE = ("0.0.0.0", "::", "")  # what a user asked for, not what we bind


@dataclass(frozen=True)
class Server:
    """A server that has answered."""

    api: Api
    child: Beside
    what: Served


def python(context: Context) -> Path | None:
    """The Python of the environment that holds vLLM, or None."""
    return venvs.find(context.config.setting("SFT_VLLM_VENV"), vllm_config.ENVIRONMENT)


def no_vllm(context: Context) -> str:
    """Why there is no vLLM here that starts on the run's device, or nothing."""
    found = python(context)
    if found is None:
        return "there is no environment with vLLM (SFT_VLLM_VENV)"
    if place(context).device == "cpu" and venvs.wants_gpu(found):
        return f"the vLLM of {found.parent.parent} is built for GPUs, and this run is on the CPU"
    return ""


def place(context: Context) -> vllm_config.Place:
    """Where a server of this run works; VLLM_TARGET_DEVICE chooses over the run's device."""
    machine = hardware.probe(context.environ)
    return vllm_config.Place(
        device=context.environ.get("VLLM_TARGET_DEVICE") or context.config.device,
        gpus=len(machine.gpus),
        memory=machine.memory,
        grace=context.config.setting("SFT_GRACE_SECONDS"),
    )


@contextmanager
def running(
    context: Context, what: Served, flags: Mapping[str, Any], stage: str
) -> Iterator[Server]:
    """A server that is ready. Raises Refused before it starts, Ended where it does not."""
    told, started = _prepared(context, what, flags), time.monotonic()
    file = context.run.folder / "config" / "vllm.yaml"
    files.write_text(file, yaml.safe_dump(told, sort_keys=False))
    plan = _plan(context, flags, file)
    for note in vllm_config.notes(what, flags):
        LOG.info("%s: %s", stage, note)
    LOG.info("%s: starting vLLM with %s", stage, _shown(what))
    with process.beside(plan, context.run.log(stage), context.clean) as child:
        server = Server(address(context, told), child, what)
        _wait(context, server, stage, started)
        yield server


def _plan(context: Context, flags: Mapping[str, Any], file: Path) -> LaunchPlan:
    """vLLM with what stands before its routes. Raises Refused where it cannot import that."""
    vllm, folder = python(context), context.run.folder
    assert vllm is not None, "checked before"
    before = access.middleware(flags, context.environ)
    opened = " ".join(access.opened(flags, context.config.setting))
    environ = {**context.environ, guard.OPEN: opened}
    plan = launch.serve(file, vllm, folder, environ, _compiler(context, vllm))
    if before:
        _import(context, launch.importing(plan, before))
    return launch.guarded(plan, before)


def _import(context: Context, plan: LaunchPlan) -> None:
    with tempfile.TemporaryDirectory(prefix="envtune-") as folder:
        log = Path(folder) / "log"
        code = process.quietly(plan, log)
        said = context.clean(log.read_text(errors="replace")).strip().splitlines()
    if code and any("No module named" in line and "envtune" in line for line in said):
        what = f"{plan.argv[0]} has no envtune, whose guard asks clients for VLLM_API_KEY; install "
        raise Refused([Problem("SFT_VLLM_VENV", f"{what}it there with --no-deps")])
    if code:
        raise Refused([Problem(f"{SERVE_FLAG}MIDDLEWARE", said[-1] if said else f"code {code}")])


def _compiler(context: Context, vllm: Path) -> Path | None:
    return hardware.cuda_home(vllm.parent.parent) if place(context).device == "cuda" else None


def _prepared(context: Context, what: Served, flags: Mapping[str, Any]) -> dict[str, Any]:
    here = place(context)
    told = vllm_config.config(what, flags, here)
    problems = [
        *vllm_config.problems(what, flags, here),
        *access.problems(flags, context.config.setting, context.environ),
        *_taken(told),
    ]
    if why := no_vllm(context):
        problems.insert(0, Problem("SFT_SERVE", why))
    if problems:
        raise Refused(problems)
    return told


def _taken(told: Mapping[str, Any]) -> Iterator[Problem]:
    if why := ports.in_use(str(told["host"]), told["port"]):
        yield Problem("SFT_SERVE_PORT", f"{told['port']} {why}; choose another port")


def address(context: Context, told: Mapping[str, Any]) -> Api:
    """Where a server with these flags answers this machine."""
    opened = tuple(n for n in access.opened(told, context.config.setting) if n.startswith("/"))
    return Api(_url(told), access.key(context.environ), opened)


def _url(told: Mapping[str, Any]) -> str:
    host, port = access.address(told)
    host = "127.0.0.1" if host in _ANYWHERE else host
    scheme = "https" if told.get("ssl_certfile") else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _shown(what: Served) -> str:
    if not what.adapters:
        return f"{what.model.name} as {', '.join(what.names)}"
    return f"{', '.join(what.adapters)} on {', '.join(what.names)}"


def _wait(context: Context, server: Server, stage: str, started: float) -> None:
    """Until every name has answered. Raises Ended where that does not come."""
    patience = context.config.setting("SFT_SERVE_START_SECONDS")
    said = started
    while not server.api.healthy():
        if (code := server.child.ended()) is not None:
            raise _died(context, server, stage, code)
        if context.stops.asked:
            drain(context, server, ready=False)
            raise Ended(stop_exit(context), f"{stage}: stopped while vLLM was starting")
        now = time.monotonic()
        if now > started + patience:
            text = f"vLLM was not ready in {patience} s (SFT_SERVE_START_SECONDS)"
            raise Ended(Exit.HARDWARE, f"{stage}: {text}; log: {context.run.log(stage)}")
        if now > said + _TELL:
            said = now
            LOG.info("%s: vLLM is starting (%.0f s)", stage, now - started)
        time.sleep(_ASK)
    _prove(context, server, stage)
    LOG.info("%s: ready after %.0f s", stage, time.monotonic() - started)


def _prove(context: Context, server: Server, stage: str) -> None:
    """One token of every name: a healthy server may still fail its first request."""
    # Several tokens: where a processor has AMX, vLLM 0.32's attention in bfloat16 dies of a single
    # one, unless a product of matrices has asked the kernel for AMX's tiles before.
    for name in (*server.what.names, *server.what.adapters):
        question = {"model": name, "prompt": _FIRST, "max_tokens": 1}
        try:
            server.api.post("/v1/completions", question)
        except httpx.HTTPError as error:
            text = f"{name} does not answer: {reason(error)}"
            raise Ended(Exit.ARTIFACT, f"{stage}: {text}; log: {context.run.log(stage)}") from error


def _died(context: Context, server: Server, stage: str, code: int) -> Ended:
    """Why a server that was not asked to has ended."""
    tail = list(server.child.tail)
    last = next((line for line in reversed(tail) if "Error" in line or "error:" in line), "")
    said = (last or (tail[-1] if tail else "")).strip() or f"code {code}"
    where = f"log: {context.run.log(stage)}"
    if failure := recognise("\n".join(tail)):
        return Ended(failure.exit, f"{stage}: {failure.cause}: {said}; {failure.fix}; {where}")
    exit_ = Exit.CONFIG if code == 2 else Exit.BUG  # argparse's own code
    return Ended(exit_, f"{stage}: vLLM ended with code {code}: {said}; {where}")


def drain(context: Context, server: Server, *, ready: bool = True) -> bool:
    """SIGTERM, again while it starts, until it is gone. False: the grace was not enough.

    vLLM stops to listen when every answer is given, and may then take long to end.
    """
    asked = closed = 0.0
    while server.child.ended() is None:
        now = time.monotonic()
        if ready and not closed and not server.api.listens():
            closed = now
        if closed and now > closed + _FLUSH:
            return True
        if now > context.stops.deadline():
            return False
        if not asked or (not ready and now > asked + _AGAIN):
            asked = now
            server.child.ask_to_end()
        time.sleep(0.1)
    return True


def serve(context: Context, what: Served) -> tuple[Exit, str]:
    """Serves until it is stopped. Raises Refused, Ended where it does not come to that."""
    with running(context, what, context.config.setting(SERVE_FLAGS) or {}, "serve") as server:
        _announce(context, server)
        health.announce(context.run.folder, server.api.url)
        while not context.stops.asked:
            if (code := server.child.ended()) is not None:
                raise _died(context, server, "serve", code)
            time.sleep(_ASK)
        LOG.info("serve: stopping; requests that are being answered are finished")
        drained = drain(context, server)
    end = "drained and ended" if drained else "did not end within the grace and was killed"
    if context.stops.exhausted:
        return Exit.BUDGET, f"serve: {context.stops.budget}; vLLM {end}"
    return Exit.DONE, f"serve: vLLM {end}"


def _announce(context: Context, server: Server) -> None:
    api, name = server.api, server.what.tuned
    LOG.info("serve: %s answers at %s/v1; envtune smoke-test tries it", name, api.url)
    host, _ = access.address(context.config.setting(SERVE_FLAGS) or {})
    if not ports.beyond_loopback(host):
        LOG.info(
            "serve: only this machine, or this container, is answered; SFT_SERVE_HOST=0.0.0.0 "
            "opens the port, with VLLM_API_KEY or SFT_SERVE_OPEN=true"
        )
    elif not api.key:
        LOG.warning("serve: everybody who reaches the port is answered (SFT_SERVE_OPEN)")
