"""What vLLM is told: the file that it reads its flags from, and what to refuse before. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envtune.artifacts import serving_rules as rules
from envtune.errors import Problem
from envtune.serve import access
from envtune.settings.own import SERVE_FLAG

if TYPE_CHECKING:
    from envtune.serve.models import Served

# Flags that the run decides, or that would make a secret of the file: what to use instead.
OWNED: Mapping[str, str] = {
    "model": "the run's own is served; SFT_SERVED_MODEL_RELPATH names another",
    "config": "envtune writes that file; set SFT_SERVE_<FLAG> or SFT_SERVE_ARGS",
    "enable_lora": "it is on where there is an adapter; SFT_SERVE_LORA_MODULES adds more",
    "api_key": "set VLLM_API_KEY, or VLLM_API_KEY_FILE",
    "hf_token": "set HF_TOKEN",
    "uds": "the server is asked over its port before it counts as ready",
    "grpc": "the server is asked over HTTP before it counts as ready",
    "headless": "a server of several nodes is started by vLLM's own command",
}
ENVIRONMENT = ".venv-serve"
_LISTS_IN_JSON = ("allowed_origins", "allowed_methods", "allowed_headers")
# What is left of the grace for the end of vLLM after its last answer, seconds.
_RESERVE = 6
# Of a CPU's memory for the cache of keys and values: a share, and a most.
_SHARE, _MOST = 16, 4 * 2**30


@dataclass(frozen=True)
class Place:
    """Where vLLM runs. `memory` in bytes, `grace` in seconds."""

    device: str
    gpus: int
    memory: int
    grace: float


def owned(flags: Mapping[str, Any]) -> list[Problem]:
    """The flags that may not be set, each with what to use instead."""
    return [Problem(SERVE_FLAG + flag.upper(), OWNED[flag]) for flag in OWNED if flag in flags]


def config(what: "Served", flags: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The flags of `vllm serve --config`. What the user set stays, but for the rank and the
    slots of adapters, which are never too few."""
    made = {
        "model": str(what.model),
        **dict(zip(("host", "port"), access.address({}), strict=True)),
        "shutdown_timeout": max(0, int(place.grace) - _RESERVE),
        **(_on_cpu(what, place) if place.device == "cpu" else _on_gpus(what, place)),
        **{n: value for n, value in flags.items() if value is not None and n != "middleware"},
        "served_model_name": list(what.names),
        **_told("tokenizer", what.tokenizer, flags),
        **_told("chat_template", what.chat_template, flags),
        **_told("generation_config", what.generation_config, flags),
        **(_lora(what, flags, place) if what.adapters else {}),
    }
    return {name: _text(name, value) for name, value in made.items() if value is not None}


def _told(name: str, path: Any, flags: Mapping[str, Any]) -> dict[str, str]:
    """A file of the run, unless the user named another."""
    return {name: str(path)} if path is not None and name not in flags else {}


def notes(what: "Served", flags: Mapping[str, Any]) -> Iterator[str]:
    """What is worth a line before vLLM starts: where it answers otherwise than it was trained."""
    own = {n: getattr(what, n) for n in ("tokenizer", "chat_template", "generation_config")}
    for name, path in own.items():
        if path is not None and name in flags:
            yield f"{SERVE_FLAG}{name.upper()} takes the place of what was trained ({path})"
    if what.adapters and what.chat_template and "chat_template" not in flags:
        yield f"{what.names[0]} beside the adapter is asked in the layout that the adapter learned"


def _on_cpu(what: "Served", place: Place) -> dict[str, Any]:
    """vLLM would turn float32 into bfloat16, compile for minutes, and take all memory."""
    exact = {} if what.quantised else {"dtype": "float32"}
    cache = min(place.memory // _SHARE, _MOST)
    return {**exact, "enforce_eager": True, "kv_cache_memory_bytes": cache}


def _on_gpus(what: "Served", place: Place) -> dict[str, Any]:
    """All GPUs that the heads of attention can be shared out to."""
    text = what.config.get("text_config") or what.config
    heads = [text.get(f"num_{kind}_heads") for kind in ("attention", "key_value")]
    counts = (
        n for n in range(max(place.gpus, 1), 0, -1) if all(not h or h % n == 0 for h in heads)
    )
    return {"tensor_parallel_size": next(counts)}


def _lora(what: "Served", flags: Mapping[str, Any], place: Place) -> dict[str, Any]:
    # On a CPU vLLM 0.32 answers for the base with the adapter in the last slot.
    slots = len(what.adapters) + (place.device == "cpu")
    return {
        "enable_lora": True,
        "lora_modules": [f"{name}={path}" for name, path in what.adapters.items()],
        "max_loras": max(slots, flags.get("max_loras") or 0),
        "max_lora_rank": max(what.rank, flags.get("max_lora_rank") or 0),
    }


def _text(name: str, value: Any) -> Any:
    """Lists as vLLM takes them: it turns each member into text, and reads some from JSON."""
    if name in _LISTS_IN_JSON:
        return json.dumps(value if isinstance(value, list) else [value])
    return [str(item) for item in value] if isinstance(value, list) else value


def problems(what: "Served", flags: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    """What vLLM would say after it has started for a minute."""
    yield from owned(flags)
    unserved = set(what.config.get("architectures") or ()) & rules.WITHOUT_LORA
    if what.adapters and unserved:
        yield Problem("serve", f"vLLM serves no adapter of a {unserved.pop()}; merge it")
    size, most = flags.get("max_model_len"), longest(what)
    if isinstance(size, int) and most and size > most:
        text = f"{size} is more than the {most} positions of the model"
        yield Problem(f"{SERVE_FLAG}MAX_MODEL_LEN", text)
    wanted = flags.get("tensor_parallel_size") or 1
    if place.device == "cuda" and wanted > place.gpus:
        text = f"{wanted} is more than the {place.gpus} GPUs that are visible"
        yield Problem(f"{SERVE_FLAG}TENSOR_PARALLEL_SIZE", text)


def longest(what: "Served") -> int | None:
    """The positions of a model that does not stretch them."""
    text = what.config.get("text_config") or what.config
    return None if text.get("rope_scaling") else text.get("max_position_embeddings")
