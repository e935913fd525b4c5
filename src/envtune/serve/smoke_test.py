"""Asks a running server what a client would, one line an answer."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from envtune.artifacts import modelfiles
from envtune.errors import Exit
from envtune.serve import models, routes, server
from envtune.serve.api import Api, reason
from envtune.serve.models import Served
from envtune.settings.own import SERVE_FLAGS
from envtune.supervise.stage import LOG, Context

_CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
_STREAM = "data: "
_TOLD = 8  # of the routes that are open, on one line


def test(context: Context) -> tuple[Exit, str]:
    """Every question to the server of a run, and what came of them all."""
    what = models.find(context)
    api = _api(context)
    passed, failed = [], []
    for name, question in QUESTIONS:
        try:
            said = question(api, what)
        except (httpx.HTTPError, LookupError, ValueError) as error:
            failed.append(name)
            LOG.error("smoke-test: %s: %s", name, context.clean(reason(error)))
        else:
            passed.append(name)
            LOG.info("smoke-test: %s: %s", name, said)
    if failed:
        return Exit.ARTIFACT, f"smoke-test: {', '.join(failed)} failed at {api.url}"
    return Exit.DONE, f"smoke-test: {len(passed)} of {len(passed)} passed at {api.url}"


def _api(context: Context) -> Api:
    return server.address(context, context.config.setting(SERVE_FLAGS) or {})


def _models(api: Api, what: Served) -> str:
    with api.client() as client:
        answer = client.get("/v1/models")
    answer.raise_for_status()
    there = {model["id"] for model in answer.json()["data"]}
    if lost := [name for name in (*what.names, *what.adapters) if name not in there]:
        raise LookupError(f"the server has no {', '.join(lost)}, only {', '.join(sorted(there))}")
    return ", ".join(sorted(there))


def _chat(api: Api, what: Served) -> str:
    told = []
    for name in (*what.names[:1], *list(what.adapters)[:1]):
        answer = api.post("/v1/chat/completions", {"model": name, **_CHAT})
        [choice] = answer["choices"]
        told.append(f"{name}: {choice['message']['content']!r}")
    return "; ".join(told)


def _streamed(api: Api, what: Served) -> str:
    """The pieces of a streamed answer are those of the answer at once."""
    question = {"model": what.tuned, **_CHAT}
    whole = api.post("/v1/chat/completions", question)["choices"][0]["message"]["content"]
    pieces = list(_pieces(api, {**question, "stream": True}))
    if "".join(pieces) != (whole or ""):
        raise ValueError(f"streamed {''.join(pieces)!r}, and {whole!r} at once")
    return f"{len(pieces)} pieces"


def _pieces(api: Api, question: dict[str, Any]) -> Iterator[str]:
    with (
        api.client() as client,
        client.stream("POST", "/v1/chat/completions", json=question) as got,
    ):
        if got.is_error:
            got.read()
        got.raise_for_status()
        for line in got.iter_lines():
            if line.startswith(_STREAM) and line != f"{_STREAM}[DONE]":
                for choice in json.loads(line.removeprefix(_STREAM))["choices"]:
                    yield choice["delta"].get("content") or ""


def _ends(api: Api, what: Served) -> str:
    """The token that ends a text ends the answer, where nothing else can be chosen."""
    ends = _end_tokens(what)
    bias = {"logit_bias": {str(ends[0]): 100.0}, "temperature": 0, "max_tokens": 4}
    answer = api.post("/v1/completions", {"model": what.tuned, "prompt": "a", **bias})
    [choice] = answer["choices"]
    if choice["finish_reason"] != "stop":
        raise ValueError(f"token {ends[0]} ends a text and did not end the answer")
    return f"stops at token {ends[0]}"


def _end_tokens(what: Served) -> list[int]:
    """The ids that end a text, as the tokenizer that is served with says them."""
    folder = what.tokenizer or what.model
    settings = modelfiles.read_json(folder / "tokenizer_config.json")
    end = settings.get("eos_token")
    text = end["content"] if isinstance(end, dict) else end
    if (found := _id(folder, text)) is not None:
        return [found]
    told = what.config.get("eos_token_id")
    if told is None:
        raise LookupError("neither the tokenizer nor the model says which token ends a text")
    return list(told) if isinstance(told, list) else [int(told)]


def _id(folder: Path, text: str | None) -> int | None:
    path = folder / "tokenizer.json"
    added = modelfiles.read_json(path).get("added_tokens", ()) if path.exists() else ()
    return next((token["id"] for token in added if token["content"] == text), None)


def _key(api: Api, what: Served) -> str:
    """Without its key the server answers nobody, where it has one."""
    if not api.key:
        return "there is none: set VLLM_API_KEY to ask clients for one"
    asked = routes.paths(api)
    if wrong := list(routes.wrong(api, asked)):
        raise ValueError("; ".join(wrong[:_TOLD]) + (", ..." if wrong[_TOLD:] else ""))
    open_ = ", ".join(api.opened)
    return f"{len(asked)} paths ask for it, by {len(routes.METHODS)} methods, but GET {open_}"


QUESTIONS: tuple[tuple[str, Callable[[Api, Served], str]], ...] = (
    ("models", _models),
    ("chat", _chat),
    ("stream", _streamed),
    ("end of text", _ends),
    ("key", _key),
)
