"""Asks a running server what a client would, one line an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from envtune.artifacts import layouts, modelfiles
from envtune.artifacts.layouts import Told
from envtune.errors import Exit
from envtune.serve import conversations, models, routes, server
from envtune.serve.api import Api, reason
from envtune.serve.models import Served
from envtune.settings.own import SERVE_FLAGS
from envtune.supervise.stage import LOG, Context

_SHORT = {"max_tokens": 8, "temperature": 0}
_WORD = "Hello"
_ROWS = 8  # of the run's, which are asked for as chats
_TOLD = 8  # of the routes that are open, on one line


@dataclass(frozen=True)
class Subject:
    """What is asked: a server of a run, the run's layout, and rows of it as chats."""

    api: Api
    what: Served
    layout: Told | None = None
    rows: Sequence[Mapping[str, Any]] = ()

    def short(self, name: str) -> tuple[str, dict[str, Any]]:
        """The path and the body of a short call that is right."""
        path, body = conversations.example(self.layout, name)
        return path, {**body, **_SHORT}


def test(context: Context) -> tuple[Exit, str]:
    """Every question to the server of a run, and what came of them all."""
    subject = _subject(context)
    passed, failed = [], []
    for name, question in QUESTIONS:
        try:
            said = question(subject)
        except (httpx.HTTPError, LookupError, ValueError) as error:
            failed.append(name)
            LOG.error("smoke-test: %s: %s", name, context.clean(reason(error)))
        else:
            passed.append(name)
            LOG.info("smoke-test: %s: %s", name, said)
    if failed:
        return Exit.ARTIFACT, f"smoke-test: {', '.join(failed)} failed at {subject.api.url}"
    return Exit.DONE, f"smoke-test: {len(passed)} of {len(passed)} passed at {subject.api.url}"


def _subject(context: Context) -> Subject:
    flags = context.config.setting(SERVE_FLAGS) or {}
    api, what = server.address(context, flags), models.find(context)
    if what.source == "override" or conversations.OWN & flags.keys():
        return Subject(api, what)
    run = context.run.folder
    return Subject(api, what, layouts.read(run), layouts.proof(run)[:_ROWS])


def _models(subject: Subject) -> str:
    what = subject.what
    with subject.api.client() as client:
        answer = client.get("/v1/models")
    answer.raise_for_status()
    there = {model["id"] for model in answer.json()["data"]}
    if lost := [name for name in (*what.names, *what.adapters) if name not in there]:
        raise LookupError(f"the server has no {', '.join(lost)}, only {', '.join(sorted(there))}")
    return ", ".join(sorted(there))


def _chat(subject: Subject) -> str:
    told, what = [], subject.what
    for name in (*what.names[:1], *list(what.adapters)[:1]):
        path, question = subject.short(name)
        told.append(f"{name}: {_said(subject.api.post(path, question))!r}")
    return f"{'; '.join(told)} ({path})"


def _said(answer: Mapping[str, Any]) -> str:
    [choice] = answer["choices"]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def _streamed(subject: Subject) -> str:
    """The pieces of a streamed answer are those of the answer at once."""
    path, question = subject.short(subject.what.tuned)
    whole = _said(subject.api.post(path, question))
    pieces = [text for text, _ in subject.api.stream(path, question)]
    if "".join(pieces) != whole:
        raise ValueError(f"streamed {''.join(pieces)!r}, and {whole!r} at once")
    return f"{len(pieces)} pieces"


def _layout(subject: Subject) -> str:
    """A chat is what training made of the row; what was not trained as one is refused."""
    layout, name = subject.layout, subject.what.tuned
    if layout is None:
        return "it is not the run's own"
    if layout.reason:
        return _refused(subject, layout.reason)
    proof = conversations.prove(subject.api, name, subject.rows)
    if proof.wrong:
        raise ValueError(f"a chat is laid out otherwise than it was trained: {proof.wrong}")
    return f"{layout.name}: {proof.line}"


def _refused(subject: Subject, why: str) -> str:
    question = {"model": subject.what.tuned, "messages": [{"role": "user", "content": _WORD}]}
    with subject.api.client() as client:
        answer = client.post(layouts.CHAT, json={**question, **_SHORT})
    if answer.status_code != httpx.codes.BAD_REQUEST or why not in answer.text:
        raise ValueError(f"a chat is answered, though {why}")
    return f"a chat is refused: {why}"


def _ends(subject: Subject) -> str:
    """The token that ends a text ends the answer, where nothing else can be chosen."""
    ends = _end_tokens(subject.what)
    bias = {"logit_bias": {str(ends[0]): 100.0}, "temperature": 0, "max_tokens": 4}
    question = {"model": subject.what.tuned, "prompt": "a", **bias}
    answer = subject.api.post("/v1/completions", question)
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


def _key(subject: Subject) -> str:
    """Without its key the server answers nobody, where it has one."""
    api = subject.api
    if not api.key:
        return "there is none: set VLLM_API_KEY to ask clients for one"
    asked = routes.paths(api)
    if wrong := list(routes.wrong(api, asked)):
        raise ValueError("; ".join(wrong[:_TOLD]) + (", ..." if wrong[_TOLD:] else ""))
    open_ = ", ".join(api.opened)
    return f"{len(asked)} paths ask for it, by {len(routes.METHODS)} methods, but GET {open_}"


QUESTIONS: tuple[tuple[str, Callable[[Subject], str]], ...] = (
    ("models", _models),
    ("chat", _chat),
    ("stream", _streamed),
    ("layout", _layout),
    ("end of text", _ends),
    ("key", _key),
)
