"""What would end a stage after training, told before any GPU time is spent on it."""

from collections.abc import Iterator

from envtune import environments, ports, quantisable, serving
from envtune.contract import SERVE_FLAGS
from envtune.errors import Problem
from envtune.settings import Settings


def problems(settings: Settings) -> list[Problem]:
    """Of the stages that these settings ask for."""
    here = [] if settings.get("SFT_PRETEND_GPU") else [*_vllm(settings), *_port(settings)]
    return [
        *here,
        *serving.owned(settings.get(SERVE_FLAGS) or {}),
        *quantisable.problems(settings),
    ]


def _vllm(settings: Settings) -> Iterator[Problem]:
    wanted = {"SFT_SERVE": settings.get("SFT_SERVE")}
    wanted["SFT_PARITY=require"] = settings.get("SFT_PARITY") == "require"
    named = settings.get("SFT_VLLM_VENV")
    if environments.find(named, serving.ENVIRONMENT):
        return
    if named:
        yield Problem("SFT_VLLM_VENV", f"{named} holds no environment (no bin/python)")
        return
    for name in (name for name, on in wanted.items() if on):
        fix = "`make setup-serve` makes one, or SFT_VLLM_VENV names its folder"
        yield Problem(name, f"needs vLLM in an environment of its own; {fix}")


def _port(settings: Settings) -> Iterator[Problem]:
    if not settings.get("SFT_SERVE"):
        return
    flags = {"host": serving.HOST, "port": serving.PORT, **(settings.get(SERVE_FLAGS) or {})}
    if why := ports.in_use(flags["host"], flags["port"]):
        yield Problem("SFT_SERVE_PORT", f"{flags['port']} {why}; choose another port")
