"""What keeps a model from being quantised, told before anything trains."""

from collections.abc import Iterator, Mapping
from typing import Any

from envtune import venvs
from envtune.errors import Problem
from envtune.resolve.config import Facts
from envtune.resolve.data import STREAMS
from envtune.settings.typed import Settings

SCHEME, VENV = "SFT_QUANTISE", "SFT_LLMCOMPRESSOR_VENV"
ENVIRONMENT = ".venv-quantise"
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def problems(settings: Settings) -> Iterator[Problem]:
    """No environment to quantise in, or no rows to look at."""
    scheme = settings.get(SCHEME)
    if scheme is None:
        return
    named = settings.get(VENV)
    if not settings.get("SFT_PRETEND_GPU") and venvs.find(named, ENVIRONMENT) is None:
        name = settings.own[VENV].name if named else _name(settings)
        yield Problem(name, no_environment(named))
    given = {key: s.name for key, s in settings.axolotl.items() if s.value}
    streamed = next((given[key] for key in STREAMS if key in given), "")
    if streamed or settings.passes_through:
        why = f"{streamed} keeps none" if streamed else "those of this training are none"
        what = f"{scheme} is tried on prepared rows of tokens, and {why}"
        yield Problem(_name(settings), f"{what}; unset it and have the server quantise")


def model_problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """A base model of another kind than those whose every layer is known."""
    if settings.get(SCHEME) is not None and (why := unfit(facts.model.config)):
        yield Problem(_name(settings), f"{facts.model.path} {why}; unset it")


def unfit(config: Mapping[str, Any]) -> str:
    """Why a model with this config.json is not quantised, or nothing."""
    if _experts(config) or _experts(config.get("text_config") or {}):
        return "is a mixture of experts, which are not quantised here but by a server"
    named = next(iter(config.get("architectures") or ()), "")
    if named and not named.endswith("ForCausalLM"):
        return f"is a {named}, and only language models (...ForCausalLM) are quantised"
    return ""


def no_environment(named: str | None) -> str:
    """The line for an environment that is not there."""
    where = f"{named} has no bin/python" if named else f"there is no {ENVIRONMENT}"
    return f"{where}; `make setup-quantise` makes {ENVIRONMENT}, {VENV} names another"


def _name(settings: Settings) -> str:
    return settings.own[SCHEME].name


def _experts(config: Mapping[str, Any]) -> bool:
    return any(isinstance(n := config.get(key), int) and n > 1 for key in _EXPERTS)
