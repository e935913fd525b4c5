"""Whom a server answers: its key, who reaches its port, and what stands before its routes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from envtune.errors import Problem
from envtune.machine import ports
from envtune.redaction import Secret
from envtune.render.launch import API_KEY
from envtune.serve import guard
from envtune.settings.own import SERVE_FLAG
from envtune.settings.own.stages import SERVE_OPEN, SERVE_OPEN_METRICS

HOST, PORT = "127.0.0.1", 8000
GUARD = f"{guard.__name__}.{guard.Guard.__name__}"
# Servers that no middleware stands before: what asks for one, by a flag or vLLM's own variable.
_UNGUARDED_FLAGS = ("grpc_port", "data_parallel_multi_port_external_lb")
_UNGUARDED = ("VLLM_USE_RUST_FRONTEND",)
# What lets a client change the server.
_POWERFUL = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
_OFF = ("", "0", "false")

Setting = Callable[[str], Any]


def key(environ: Mapping[str, str]) -> str:
    """The key that clients have to show; a blank one is none."""
    value = environ.get(API_KEY, "")
    text = value.reveal() if isinstance(value, Secret) else value
    return text if text.strip() else ""


def address(flags: Mapping[str, Any]) -> tuple[str, int]:
    """The host and the port of a server with these flags."""
    host, port = flags.get("host"), flags.get("port")
    return HOST if host is None else host, PORT if port is None else port


def opened(flags: Mapping[str, Any], setting: Setting) -> tuple[str, ...]:
    """What is answered without the key. A browser asks before it shows one, where the user has
    said from where browsers may ask."""
    metrics = (guard.METRICS,) if setting(SERVE_OPEN_METRICS) else ()
    preflights = (guard.PREFLIGHT,) if flags.get("allowed_origins") else ()
    return (guard.HEALTH, *metrics, *preflights)


def middleware(flags: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, ...]:
    """What vLLM puts before its routes, the outermost last: the user's own, then the guard."""
    return (*(flags.get("middleware") or ()), *((GUARD,) if key(environ) else ()))


def problems(
    flags: Mapping[str, Any], setting: Setting, environ: Mapping[str, str]
) -> Iterator[Problem]:
    """A server that would answer others than was meant, or nobody."""
    told = key(environ)
    yield from _unguarded(flags, environ) if told else _open(flags, setting, environ)
    if told and (not told.isascii() or not told.isprintable() or told != told.strip()):
        what = "no header carries it; a key has letters, digits and signs of ASCII, no space around"
        yield Problem(API_KEY, what)


def _unguarded(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Problem]:
    asked = [name for name in _UNGUARDED if _on(environ, name)]
    asked += [SERVE_FLAG + name.upper() for name in _UNGUARDED_FLAGS if flags.get(name)]
    for name in asked:
        yield Problem(name, f"starts a server that asks for no key; unset it, or {API_KEY}")


def _open(
    flags: Mapping[str, Any], setting: Setting, environ: Mapping[str, str]
) -> Iterator[Problem]:
    host, _ = address(flags)
    if not ports.beyond_loopback(host):
        return
    if not setting(SERVE_OPEN):
        what = f"{host or 'every address'} is reached by others, and without a key they are all "
        fix = f"answered; set {API_KEY}, or {SERVE_OPEN}=true where that is meant"
        yield Problem(f"{SERVE_FLAG}HOST", what + fix)
    for name in (name for name in _POWERFUL if _on(environ, name)):
        what = "lets everybody who reaches the port change the server"
        yield Problem(name, f"{what}; set {API_KEY}, or unset it")


def _on(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() not in _OFF
