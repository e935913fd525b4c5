"""The strategy of a data set: by its keys and the configuration, or Beyond."""

from collections.abc import Mapping
from typing import Any

from envtune.data.shapes import TEMPLATED
from envtune.engine.data.backend import Backend
from envtune.engine.data.types import instruct, templates
from envtune.engine.data.types.chat import Chat, Options
from envtune.engine.data.types.made import Beyond, Strategy
from envtune.engine.data.types.marked import Marked
from envtune.engine.data.types.texts import Completion, Segments
from envtune.engine.data.types.turns import Reading

_CHAT, _TEXT, _SEGMENTS = "chat_template", "completion", "input_output"
# Keys of a data set with which Axolotl reads it in a way that is not known here.
_UNKNOWN = (
    "conversation", "input_transform", "message_field_training_detail", "split_thinking",
)  # fmt: skip


def strategy(keys: Mapping[str, Any], config: Mapping[str, Any], backend: Backend) -> Strategy:
    """How rows with these keys become ids. Raises Beyond with the reason where Axolotl has to."""
    keys = {key: value for key, value in keys.items() if value is not None}
    kind = keys.get("type")
    if set_ := next((key for key in _UNKNOWN if keys.get(key)), None):
        raise Beyond(f"{set_} is set")
    if kind == _CHAT:
        return _chat(keys, config, backend)
    if kind == _SEGMENTS:
        return Segments(backend, config)
    if kind == TEMPLATED:
        return Marked(keys, backend, config)
    if backend.loaded.eos_id is None:
        raise Beyond("the tokenizer has no token for the end of a text")
    if kind == _TEXT:
        return Completion(keys.get("field", "text"), backend, config)
    found = instruct.layout(kind) if kind else None
    if found is None:
        raise Beyond(f"type: {kind} is laid out by Axolotl alone")
    return instruct.Instruct(found, backend, config)


def _chat(keys: Mapping[str, Any], config: Mapping[str, Any], backend: Backend) -> Chat:
    loaded = backend.loaded
    text = templates.source(keys, config, loaded)
    if text is None:
        raise Beyond("no chat template is found")
    options = _options(keys, config, backend, text)
    variables = templates.message_variables(text, keys.get("field_messages") or "messages")
    reading = Reading(keys, variables)
    template = templates.Template(text, loaded.special, config.get("chat_template_kwargs") or {})
    return Chat(reading, template, backend, options)


def _options(
    keys: Mapping[str, Any], config: Mapping[str, Any], backend: Backend, text: str
) -> Options:
    roles = keys.get("roles_to_train", ["assistant"])
    eos = keys.get("train_on_eos", "turn")
    if not roles and not eos:
        raise Beyond("roles_to_train and train_on_eos are empty")
    named = {s: t for t, sources in (keys.get("roles") or {}).items() for s in sources}
    known = named or {"human": "user", "gpt": "assistant"}
    tokens = config.get("eot_tokens")
    if tokens is None:
        tokens = [] if backend.loaded.eos is None else [backend.loaded.eos]
    elif tokens != [backend.loaded.eos]:
        tokens = [token for token in tokens if token in text]
        if wrong := [token for token in tokens if len(backend.ids(token)) != 1]:
            raise Beyond(f"eot_tokens: {wrong[0]} is no token of this tokenizer")
    eot = keys.get("train_on_eot") or eos
    if backend.loaded.eos in tokens and config.get("eot_tokens") and eos != eot:
        raise Beyond("train_on_eos and train_on_eot speak of one token")
    name = str(config.get("tokenizer_config") or config.get("base_model") or "")
    return Options(
        roles=frozenset(known.get(role, role) for role in roles),
        whole=bool(config.get("train_on_inputs")),
        eos=eos,
        eot=eot,
        eot_tokens=tuple(tokens),
        hides_system="mistral" in name.lower(),
    )
