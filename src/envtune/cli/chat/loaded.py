"""The trained model as the one who answers, loaded by a child as its evaluation loads it."""

import collections
import json
import queue
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envtune import files
from envtune.cli.chat.voices import NEW_TOKENS, About, Messages, Pieces
from envtune.errors import Exit, Problem, Refused
from envtune.failures.table import recognise
from envtune.render import launch
from envtune.supervise import process
from envtune.supervise.process import Partner
from envtune.supervise.stage import Context
from envtune.transfer import hubcache

# Begins a record among what the engines print; seconds between two lines about a long start.
_RECORD, _TELL = "\x1e", 10.0


class Loaded:
    """Asks the child; `about` waits until it has loaded the model."""

    def __init__(self, child: Partner, device: str, tell: Callable[[str], None]) -> None:
        self.child, self.number = child, 0
        self.tail: collections.deque[str] = collections.deque(maxlen=20)
        seconds = 0.0
        while (said := self._hear(_TELL)) is None:
            seconds += _TELL
            tell(f"the model is still being loaded ({seconds:.0f} s)")
        told = said["about"]
        place = f"transformers on this machine's {'GPU' if device == 'cuda' else 'CPU'}"
        self.about = About(
            place, told["reason"], told.get("several", False), told.get("system", False),
            tuple(told.get("columns", ())),
        )  # fmt: skip

    def answer(self, side: str, messages: Messages, columns: Mapping[str, str]) -> Pieces:
        self.number += 1  # what an answer that was interrupted still says is another's
        asked = {"number": self.number, "side": side, "messages": messages, "columns": columns}
        end = ""
        try:
            self._ask(asked)
            while not end:
                said = self._hear(_TELL) or {}
                if said.get("number") == self.number:
                    end = said.get("end", "")
                    yield said.get("text", ""), end
        finally:
            if not end:
                self.child.interrupt()

    def _ask(self, asked: Mapping[str, Any]) -> None:
        try:
            self.child.tell(json.dumps(asked))
        except BrokenPipeError:
            raise self._lost() from None

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """The next record, or None after some time. Raises Refused for what it refuses, and where
        the child has ended."""
        record = ""
        while not record:
            try:
                line = self.child.hear(seconds)
            except queue.Empty:
                return None
            if line is None:
                raise self._lost()
            before, _, record = line.partition(_RECORD)
            if before.strip():
                self.tail.append(before.strip())
        said: dict[str, Any] = json.loads(record)
        if "refused" in said and said.get("number", self.number) == self.number:
            raise Refused([Problem("", said["refused"], Exit(said["exit"]))])
        return said

    def _lost(self) -> Refused:
        last = self.tail[-1] if self.tail else "without a word"
        if failure := recognise("\n".join(self.tail)):
            return Lost([Problem("", f"{failure.cause}: {last}; {failure.fix}", failure.exit)])
        return Lost([Problem("", f"what answers has ended: {last}", Exit.BUG)])


class Lost(Refused):
    """Raised where nobody is left to answer."""


@contextmanager
def loaded(
    context: Context, artifact: Path, generation: Mapping[str, Any], tell: Callable[[str], None]
) -> Iterator[Loaded]:
    """The model of a run, loaded while the block runs. Raises Refused where it cannot be."""
    config = context.config
    base = hubcache.base_folder(config, context.environ)
    if base is None or not (base / "config.json").exists():
        name = str(config.plain()["base_model"])
        raise Refused([Problem("", f"the base {name} is not there any more", Exit.ACCESS)])
    order = {
        "config": "config/axolotl.yaml",
        "artifact": str(artifact),
        "generation": {"max_new_tokens": NEW_TOKENS, **generation},
    }
    environ = launch.measuring(config, context.environ, online=False)
    with tempfile.TemporaryDirectory(prefix="envtune-") as folder:
        path = Path(folder) / "order.json"  # the run's folder may be read-only
        files.write_json(path, order, durable=False)
        plan = launch.engine("chat", path, sys.executable, context.run.folder, environ)
        with process.talking(plan) as child:
            yield Loaded(child, config.device, tell)
