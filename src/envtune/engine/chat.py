"""Answers for a conversation in a terminal: python -m envtune.engine.chat ORDER.json

The order names `config` and `artifact` as an evaluation's does, and `generation`. A line of
standard input asks: `number`, `side`, `messages`, `columns`. Standard output has records as JSON
text sequences (RFC 7464), since the engines print there too: first what the layout is, then for
each question pieces of `text` and how it came to its `end`. SIGINT ends an answer, not the chat.
"""

import json
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from envtune.artifacts import layouts
from envtune.engine.evaluate import generation, prompting
from envtune.engine.evaluate.trained import BASE, TUNED, read
from envtune.engine.layouts import found
from envtune.engine.layouts.layout import Layout
from envtune.errors import Exit, Problem, Refused

_SEVERAL = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
# What decodes to this is half of a letter.
_HALF = "\N{REPLACEMENT CHARACTER}"


class Chat:
    """The trained model and, once it is asked for, its base; they stay loaded."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.trained = read(Path(order["config"]), Path(order["artifact"]), None)
        self.settings = generation.settings(order["generation"])
        told = layouts.read(self.trained.artifact.parent)
        self.stops = told.stops if told else ()
        self.layout, self.reason = self._laid_out(told)
        self.models: dict[str, Any] = {}
        self.interrupted = False
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True

    def _laid_out(self, told: layouts.Told | None) -> tuple[Layout | None, str]:
        """The layout to ask in, or why text is continued in place of a chat."""
        if told and told.reason:
            return None, told.reason
        try:
            layout = prompting.layout(self.trained.cfg, self.trained.tokenizer, told)
            self._ids(_SEVERAL[:1], {}, layout)
        except Refused as refused:
            return None, refused.line
        return layout, "" if layout else found.RAW

    def about(self) -> dict[str, Any]:
        """What the layout is: why it is no chat, or whether it has several turns, and what a
        question may name."""
        layout = self.layout
        if layout is None:
            return {"reason": self.reason}
        try:
            self._ids(_SEVERAL, {}, layout)
        except Refused:
            several = False
        else:
            several = True
        more = {"columns": layout.columns, "system": layout.system}
        return {"reason": "", "layout": layout.name, "several": several, **more}

    def _ids(self, messages: Any, columns: Mapping[str, str], layout: Layout | None) -> list[int]:
        named = dict.fromkeys(layout.columns, "") if layout else {}
        return prompting.ids(messages, {**named, **columns}, layout, self.trained.tokenizer)

    def load(self, side: str) -> Any:
        """The model of a side; an adapter's is its base's too."""
        held = TUNED if self.trained.adapter else side
        if held not in self.models:
            self.models[held] = self.trained.load(held)
        return self.models[held]

    def answer(self, asked: Mapping[str, Any], say: Callable[..., None]) -> None:
        """Says an answer piece by piece, and its end: stop, length, or interrupted."""
        ids = self._ids(asked["messages"], asked["columns"], self.layout)
        model = self.load(asked["side"])
        config = generation.configured(
            {**self.settings, **self._room(model, len(ids))},
            self.trained.tokenizer, model, self.trained.cfg, self.stops,
        )  # fmt: skip
        pieces = Pieces(self.trained.tokenizer, config.eos_token_id, lambda text: say(text=text))
        how: dict[str, Any] = {"stopping_criteria": [self._stopping], "streamer": pieces}
        if config.num_beams and config.num_beams > 1:
            del how["streamer"]  # which beam wins is known at the end
        apart = asked["side"] == BASE and self.trained.adapter
        with model.disable_adapter() if apart else nullcontext():
            [made] = generation.answer(model, [ids], config, self.trained.cfg.seed or 42, **how)
        pieces.end_with(made.ids)
        cut = "interrupted" if self.interrupted else "length"
        say(end="stop" if made.stopped else cut)

    def _stopping(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((input_ids.shape[0],), self.interrupted, device=input_ids.device)

    def _room(self, model: Any, prompt: int) -> dict[str, int]:
        longest = generation.context(model)
        if longest is None:
            return {}
        if prompt >= longest:
            what = f"the conversation has {prompt} tokens, and the model takes {longest}"
            raise Refused([Problem("", what, Exit.DATA)])
        return {"max_new_tokens": min(self.settings["max_new_tokens"], longest - prompt)}


class Pieces(BaseStreamer):  # type: ignore[misc]  # transformers ships no types
    """Makes text of tokens as they come; half of a letter waits for the other."""

    def __init__(self, tokenizer: Any, ends: Any, hear: Callable[[str], None]) -> None:
        self.tokenizer, self.ends, self.hear = tokenizer, set(ends), hear
        self.ids: list[int] | None = None
        self.said = ""

    def put(self, value: Any) -> None:
        if self.ids is None:
            self.ids = []  # the prompt comes first
            return
        self.ids += [id_ for id_ in value.flatten().tolist() if id_ not in self.ends]
        text = self._text(self.ids)
        if not text.endswith(_HALF):
            self._say(text)

    def end(self) -> None:
        """The whole answer is told by `end_with`."""

    def end_with(self, ids: list[int]) -> None:
        """Says what is left of the answer."""
        self._say(self._text(ids))

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _say(self, text: str) -> None:
        if text.startswith(self.said) and len(text) > len(self.said):
            self.hear(text[len(self.said) :])
            self.said = text


def _say(**record: Any) -> None:
    print(f"\x1e{json.dumps(record)}", flush=True)


def main() -> None:
    logging.getLogger("axolotl").setLevel(logging.WARNING)
    try:
        chat = Chat(json.loads(Path(sys.argv[1]).read_text()))
        chat.load(TUNED)
    except Refused as refusal:
        _say(refused=refusal.line, exit=refusal.exit)
        sys.exit(refusal.exit)
    _say(about=chat.about())
    for line in sys.stdin:
        asked, chat.interrupted = json.loads(line), False
        number = asked["number"]
        try:
            chat.answer(asked, lambda number=number, **told: _say(number=number, **told))
        except Refused as refusal:
            _say(number=number, refused=refusal.line, exit=refusal.exit)


if __name__ == "__main__":
    main()
