"""What is asked of a model: prompts from the environment or a file, each checked.

A prompt is a text, or an object with `instruction` (or `prompt`, or `messages`), and what
its answer has to keep: `language`, `max_sentences`, `reference`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.errors import Exit, Problem
from envtune.settings import documents, languages
from envtune.settings.documents import DocumentError
from envtune.settings.own.stages import PROMPT
from envtune.settings.schema import Mismatch, Schema
from envtune.settings.typed import Settings

FROM_FILE = ("SFT_EVAL_PROMPTS", "SFT_EVAL_PAIRS")
_ASKED = ("instruction", "prompt", "messages")
_ROLES = ("system", "user", "assistant", "tool")
_SCHEMA = Schema({}, {})
# Bytes of a file of prompts.
_LIMIT = 1 << 26


@dataclass(frozen=True)
class Prompt:
    """One prompt: an `instruction` with its `input`, or a whole chat in `messages`."""

    instruction: str = ""
    input: str = ""
    system: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    language: str | None = None
    max_sentences: int | None = None
    references: tuple[str, ...] = ()

    @property
    def chat(self) -> list[dict[str, str]]:
        """The prompt as the messages of a chat that ends before the answer."""
        if self.messages:
            return [dict(message) for message in self.messages]
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = f"{self.instruction}\n\n{self.input}" if self.input else self.instruction
        return [*system, {"role": "user", "content": asked}]


def problems(settings: Settings) -> Iterator[Problem]:
    """What is wrong with the prompts that the settings name, a line for each setting."""
    for name in FROM_FILE:
        if (setting := settings.own.get(name)) and setting.value is not None:
            try:
                read(setting.value, scored=name == "SFT_EVAL_PAIRS")
            except DocumentError as error:
                yield Problem(setting.name, str(error), Exit.DATA)


def read(given: str | list[Any], *, scored: bool = False) -> list[Prompt]:
    """The prompts of a list, or of a file; `scored` ones need references. Raises DocumentError."""
    items, where = (given, "") if isinstance(given, list) else (_items(Path(given)), f"{given}: ")
    if not items:
        raise DocumentError(f"{where}holds no prompt")
    return [_prompt(item, f"{where}prompt {n}", scored) for n, item in enumerate(items, 1)]


def _items(path: Path) -> list[Any]:
    if not os.path.exists(path):  # False for a name that is too long, too
        raise DocumentError(f'{path} is not there; a prompt itself goes into a list: ["Say hi."]')
    text = documents.read_text(path, _LIMIT)
    if path.suffix == ".txt":
        return [line.strip() for line in text.splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), 1)
        return [documents.parse(line, f"{path}:{n}", ".json") for n, line in lines if line.strip()]
    found = documents.parse(text, str(path), path.suffix)
    if isinstance(found, Mapping) and len(found) == 1:  # eval_prompts: [...]
        found = next(iter(found.values()))
    if not isinstance(found, list):
        raise DocumentError(f"{path} holds no list of prompts")
    return found


def _prompt(item: Any, where: str, scored: bool) -> Prompt:
    given = {"instruction": item} if isinstance(item, str) else item
    try:
        given = _SCHEMA.accept(given, PROMPT)
    except Mismatch as mismatch:
        raise DocumentError(str(mismatch.told(where, json.dumps(item, default=str)))) from None
    if problem := _wrong(given, scored):
        raise DocumentError(f"{where} {problem}")
    references = given.get("references", given.get("reference", []))
    return Prompt(
        instruction=given.get("instruction", given.get("prompt", "")),
        input=given.get("input", ""),
        system=given.get("system", ""),
        messages=tuple(given.get("messages", ())),
        language=given.get("language"),
        max_sentences=given.get("max_sentences"),
        references=(references,) if isinstance(references, str) else tuple(references),
    )


def _wrong(given: Mapping[str, Any], scored: bool) -> str:
    """What is wrong with a prompt beyond its types, or nothing."""
    asked = [name for name in _ASKED if given.get(name)]
    if len(asked) != 1:
        return f"needs one of {', '.join(_ASKED)}, and has {' and '.join(asked) or 'none'}"
    if messages := given.get("messages"):
        roles = [message.get("role") for message in messages]
        if set(roles) - set(_ROLES) or roles[-1] == "assistant":
            return f"has messages of {', '.join(map(str, roles))}; a user's has to be the last"
        if given.get("system") or given.get("input"):
            return "has messages; put system and input into them"
    code = languages.code(given.get("language") or "en")
    if code not in languages.LANGUAGES:
        what = f"asks for the language {given['language']!r}, which cannot be told from others"
        return f"{what}; give a code of ISO 639 such as en, it or pt"
    if {"reference", "references"} <= given.keys():
        return "has reference and references; choose one of the two"
    if scored and not (given.get("reference") or given.get("references")):
        return "has no reference to score its answer by"
    return ""
