"""The run's own server as the one who answers."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from envtune.artifacts import layouts
from envtune.artifacts.layouts import CHAT
from envtune.cli.chat.voices import BASE, NEW_TOKENS, TUNED, About, Messages, Pieces
from envtune.errors import Exit, Problem, Refused
from envtune.render.launch import API_KEY
from envtune.serve.api import Api, reason

_TEXT = "/v1/completions"
# What transformers calls it, and what vLLM does; the other names have no place in a request.
_SAMPLING = {
    "max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "temperature": "temperature",
    "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}  # fmt: skip
_DRAWN = ("temperature", "top_p", "top_k", "min_p")
_SEVERAL = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]


class Served:
    """Asks the server of a run. Raises Refused where it does not let itself be asked."""

    def __init__(self, api: Api, run: Path, name: str, generation: Mapping[str, Any]) -> None:
        self.api = api
        self.names = _names(self._get("/v1/models"), name)
        self.sampling = _sampling(generation)
        self.about = self._told(layouts.read(run))

    def _told(self, told: layouts.Told | None) -> About:
        base = "" if BASE in self.names else "the server holds the trained model alone"
        why = told.reason if told else self._refusal(_SEVERAL[:1], {})
        about = About(f"vLLM at {self.api.url}", base=base)
        if why:
            return About(about.place, why, base=base)
        columns = dict.fromkeys(told.columns, "") if told else {}
        several = not self._refusal(_SEVERAL, columns)
        system = told.system if told else True
        return About(about.place, "", several, system, tuple(columns), base)

    def answer(self, side: str, messages: Messages, columns: Mapping[str, str]) -> Pieces:
        asked = {"model": self.names[side], **self._question(messages, columns)}
        try:
            room = self._room(asked)
            path = CHAT if "messages" in asked else _TEXT
            yield from self.api.stream(path, {**asked, **self.sampling, "max_tokens": room})
        except (httpx.HTTPError, LookupError, ValueError) as error:
            raise _refused(self.api, error) from None

    def _question(self, messages: Messages, columns: Mapping[str, str]) -> dict[str, Any]:
        if self.about.reason:
            return {"prompt": messages[-1]["content"]}
        named = dict.fromkeys(self.about.columns, "") | dict(columns)
        return {"messages": messages, **({"chat_template_kwargs": named} if named else {})}

    def _room(self, asked: Mapping[str, Any]) -> int:
        """The tokens that an answer may have: vLLM refuses what could be longer than it takes."""
        told = self.api.post("/tokenize", asked)
        room = told["max_model_len"] - told["count"]
        if room < 1:
            what = f"has {told['count']} tokens, and the model takes {told['max_model_len']}"
            raise Refused([Problem("", f"the conversation {what}", Exit.DATA)])
        return int(min(self.sampling["max_tokens"], room))

    def _refusal(self, messages: Messages, columns: Mapping[str, str]) -> str:
        """Why the layout has no such chat, in its own words, or nothing."""
        named = {"chat_template_kwargs": dict(columns)} if columns else {}
        try:
            self.api.post("/tokenize", {"model": self.names[TUNED], "messages": messages, **named})
        except httpx.HTTPError as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 400
            if refused:
                return _words(error)
            raise _refused(self.api, error) from None
        return ""

    def _get(self, path: str) -> Any:
        try:
            with self.api.client() as client:
                answer = client.get(path)
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise _refused(self.api, error) from None


def _sampling(generation: Mapping[str, Any]) -> dict[str, Any]:
    """How to answer, as a request says it: greedy as the evaluation is, where nobody says."""
    drawn = generation.get("do_sample", bool(generation.get("temperature")))
    kept = generation if drawn else {n: generation[n] for n in generation.keys() - set(_DRAWN)}
    given = {"max_new_tokens": NEW_TOKENS, **({} if drawn else {"temperature": 0}), **kept}
    return {_SAMPLING[name]: value for name, value in given.items() if name in _SAMPLING}


def unheard(generation: Mapping[str, Any]) -> list[str]:
    """What a request has no place for."""
    return sorted(generation.keys() - {*_SAMPLING, "do_sample"})


def _names(told: Any, run: str) -> dict[str, str]:
    """The name of each side on a server: an adapter's parent is its base."""
    parents = {card["id"]: card.get("parent") for card in told["data"]}
    adapters = [name for name, parent in parents.items() if parent]
    tuned = run if run in parents else next(iter([*adapters, *parents]))
    base = parents[tuned]
    return {TUNED: tuned, **({BASE: base} if base else {})}


def _refused(api: Api, error: Exception) -> Refused:
    if not isinstance(error, httpx.HTTPStatusError):
        text = f"the server at {api.url} does not answer: {reason(error)}"
        return Refused([Problem("", text, Exit.NETWORK)])
    if error.response.status_code in (401, 403):
        text = f"the server at {api.url} asks for another key than this"
        return Refused([Problem(API_KEY, text, Exit.ACCESS)])
    bad = error.response.status_code == httpx.codes.BAD_REQUEST
    code = Exit.DATA if bad else Exit.NETWORK
    return Refused([Problem("", f"the server at {api.url}: {_words(error)}", code)])


def _words(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        with suppress(ValueError, LookupError, TypeError):
            return str(error.response.json()["error"]["message"])
    return reason(error)
