"""A row's turns and tools, as Axolotl's strategy for chat templates reads them of a row."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from envtune.data.batches import Row
from envtune.engine.data.types.made import Beyond

_ROLES = {
    "human": "user", "user": "user", "assistant": "assistant", "gpt": "assistant",
    "system": "system", "tool": "tool",
}  # fmt: skip
_TEXTS = ("text", "content", "value")
# Axolotl takes other names for these in its schema and never reads them.
_SYSTEM, _TOOLS = "system", "tools"


class Reading:
    """How the rows of one data set become turns."""

    def __init__(self, keys: Mapping[str, Any], variables: Collection[str]) -> None:
        self.messages = keys.get("field_messages") or "messages"
        mapped = dict(keys.get("message_property_mappings") or {})
        for name in ("role", "content"):
            mapped.setdefault(name, keys.get(f"message_field_{name}") or name)
        self.mapped = mapped
        self.more = [name for name in variables if name not in mapped.values()]
        named = keys.get("roles")
        self.roles = {s: t for t, sources in named.items() for s in sources} if named else _ROLES
        self.training = keys.get("message_field_training")
        self.thinking = keys.get("template_thinking_key") or "reasoning_content"
        self.without_system = bool(keys.get("drop_system_message"))

    def read(self, row: Row) -> tuple[list[dict[str, Any]], Any]:
        """Turns and tools. Raises ValueError, TypeError, LookupError, AttributeError where
        Axolotl does, and Beyond for a row of which parts of a text are trained."""
        row = _without_none(row)
        messages = self._messages(row)
        turns = [self._turn(message) for message in messages]
        if turns[0]["role"] != "system" and _SYSTEM in row:
            turns.insert(0, {"role": "system", "content": row[_SYSTEM]})
        if self.without_system and turns[0]["role"] == "system":
            del turns[0]
        if not turns:
            raise ValueError("it has no message")
        return turns, _tools(row.get(_TOOLS))

    def _messages(self, row: Row) -> list[Mapping[str, Any]]:
        messages = row.get(self.messages)
        if isinstance(messages, str):
            messages = json.loads(messages)
        if not isinstance(messages, list) or not messages:
            raise ValueError(f"it has no list of messages in {self.messages!r}")
        if wrong := [message for message in messages if not isinstance(message, Mapping)]:
            raise ValueError(f"a message is {wrong[0]!r:.80}, and no object")
        return messages

    def _turn(self, message: Mapping[str, Any]) -> dict[str, Any]:
        turn = {
            key: message[name] for key, name in self.mapped.items() if message.get(name) is not None
        }
        if "role" not in turn:
            raise ValueError(f"a message has no {self.mapped['role']!r}: {dict(message)!r:.80}")
        turn["role"] = self.roles.get(turn["role"], turn["role"])
        turn |= {name: message[name] for name in self.more if message.get(name) is not None}
        for call in turn.get("tool_calls") or ():
            if "function" in call and isinstance(call["function"].get("arguments"), str):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        if self.training and (training := message.get(self.training)) is not None:
            turn["training"] = training
        for key in ("content", self.thinking):
            if isinstance(turn.get(key), list):
                turn[key] = _joined(turn[key])
        return turn


def _joined(parts: list[Any]) -> str:
    texts = [part for part in parts if isinstance(part, Mapping)]
    if any(part.get(key) is not None for part in texts for key in ("train", "weight")):
        raise Beyond("parts of a message say whether they are trained")
    return "".join(next(filter(None, map(part.get, _TEXTS)), "") for part in texts)


def _tools(tools: Any) -> Any:
    if isinstance(tools, str):
        tools = json.loads(tools)
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise TypeError(f"tools are {tools!r:.80}, and no list")
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if function and isinstance(function.get("parameters"), str):
            function["parameters"] = json.loads(function["parameters"])
    return tools or None


def _without_none(value: Any) -> Any:
    """A copy without what is null, at any depth of objects."""
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
