"""Whether a server lays a chat out as training did: rows of the run asked for as chats.

A server's prompt has to be what the row's tokens are, up to an answer. Some templates write
a space there, which most answers take into their first token; where one does not, the prompt
ends before it, which is counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.artifacts.layouts import CHAT, Told
from envtune.serve.api import Api

# Tokens of an answer that shows whether it ends by itself, and how many rows are asked for one.
ANSWER, ANSWERS = 96, 8
_SHOWN = 60
# Flags of vLLM's that lay a chat out: where they are the user's, no layout is the run's.
OWN = frozenset({"chat_template", "tokenizer", "tokenizer_mode"})
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Proof:
    """How many rows were asked for, were equal but for a space, and ended their answer; and what
    is wrong with the first that was not, or nothing."""

    rows: int
    near: int = 0
    ended: int = 0
    answered: int = 0
    wrong: str = ""

    @property
    def line(self) -> str:
        """What was proved, on one line."""
        near = f", {self.near} but for a space that the template writes" if self.near else ""
        ended = f"; {self.ended} of {self.answered} answers end by themselves" * bool(self.answered)
        return f"{self.rows} rows asked as chats have their training's tokens{near}{ended}"


def prove(api: Api, name: str, rows: Iterable[Row]) -> Proof:
    """Asks a model by name for each row. Raises httpx.HTTPError."""
    asked = [(row, _ask(api, name, row, n < ANSWERS)) for n, row in enumerate(rows)]
    prompts = [(row, said["prompt_token_ids"]) for row, said in asked]
    ends = [said["choices"][0]["finish_reason"] == "stop" for _, said in asked[:ANSWERS]]
    return judge(prompts, ended=sum(ends), answered=len(ends))


def judge(prompts: Iterable[tuple[Row, list[int]]], *, ended: int = 0, answered: int = 0) -> Proof:
    """Compares the ids that a server made of each row's chat with the row's own."""
    rows = near = 0
    for row, ids in prompts:
        if wrong := difference(row, ids):
            return Proof(rows, near, ended, answered, wrong)
        rows, near = rows + 1, near + (len(ids) not in row["starts"])
    return Proof(rows, near, ended, answered)


def difference(row: Row, ids: list[int]) -> str:
    """What is other in a prompt than in its row, or nothing."""
    own: list[int] = row["ids"]
    if any(ids == own[:start] for start in (*row["starts"], *row["near"])):
        return ""
    at = next((i for i, (a, b) in enumerate(zip(ids, own, strict=False)) if a != b), len(ids))
    words = str(row["messages"][-1]["content"])
    asked = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
    told = ids[at] if at < len(ids) else "nothing"
    expected = own[at] if at < min(len(own), max(row["starts"])) else "the answer"
    return f"row {row['row']} ({asked!r}): token {at + 1} is {told} where training had {expected}"


def _ask(api: Api, name: str, row: Row, answer: bool) -> dict[str, Any]:
    more = {key: row[key] for key in ("messages", "chat_template_kwargs") if key in row}
    size = ANSWER if answer else 1
    told = {"model": name, "max_tokens": size, "temperature": 0, "return_token_ids": True}
    return api.post(CHAT, {**told, **more})


def example(told: Told | None, name: str) -> tuple[str, dict[str, Any]]:
    """The path and the body of the call that is right for a model."""
    if told is None:
        return CHAT, {"model": name, "messages": [{"role": "user", "content": "..."}]}
    return told.example["path"], {"model": name, **told.example["body"]}
