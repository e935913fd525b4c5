"""The layout of each of a run's data sets, as Axolotl's own code for their types has it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import IterableDataset

from envtune.data.marks import Layout as RowLayout
from envtune.engine.layouts import chats, recording
from envtune.engine.layouts.layout import (
    INPUT,
    SYSTEM,
    USER,
    Border,
    Column,
    Layout,
    Prompt,
    of_prompts,
    refusing,
)
from envtune.engine.layouts.recording import Unrecorded
from envtune.engine.rows import RowStrategy
from envtune.engine.tokens import around, glue, never_cut, one
from envtune.resolve.data import ROWS

# What a request for a row's answer says: its messages, and what it names besides.
Request = tuple[list[dict[str, str]], dict[str, str]]
# Types whose rows are trained as the text that they are.
TEXTS = ("completion", "pretrain")
RAW = "raw text was trained, and no chat"
SEGMENTS = "input_output"


@dataclass(frozen=True)
class Found:
    """A data set's layout; Axolotl's strategy for its rows, where it has one; and how a row is
    asked for, which is None where the chat cannot ask for it."""

    layout: Layout
    strategy: Any = None
    ask: Callable[[Mapping[str, Any]], Request | None] = lambda _: None


def of(cfg: Any, dataset: Any, tokenizer: Any, columns: Collection[str] | None = None) -> Found:
    """The layout of a data set of the configuration. `columns` of its rows, where known."""
    name = named(dataset)
    stops = tuple(i for i in (tokenizer.eos_token_id,) if i is not None)
    strategy = _strategy(cfg, dataset, tokenizer)
    if prompter := getattr(getattr(strategy, "prompter", None), "chat_template", None):
        return _of_chat(name, prompter, strategy, tokenizer, cfg)
    if name.startswith(TEXTS) or _is_raw(strategy):
        return Found(refusing(name, RAW, stops), strategy)
    if strategy is None:  # Axolotl's own messages, mistral-common: the tokenizer's template holds
        own = getattr(tokenizer, "chat_template", None)
        return Found(Layout(name, own if isinstance(own, str) else "", stops=stops))
    try:
        return _of_prompts(name, strategy, tokenizer, columns)
    except Unrecorded as error:
        return Found(refusing(name, str(error), stops), strategy)


def named(dataset: Any) -> str:
    """What a data set's layout is called: its type, or what takes the place of one."""
    kind = dataset.type or "tokens"
    if kind == ROWS:
        return "input_format" if dataset.input_format else "text"
    return kind if isinstance(kind, str) else "prompt and completion"


def _is_raw(strategy: Any) -> bool:
    return isinstance(strategy, RowStrategy) and strategy.layout.response is None


class _Catching(IterableDataset):  # type: ignore[misc]  # its own base has no types
    """A data set that is asked to be tokenised, and keeps by whom."""

    strategy: Any = None

    def __init__(self) -> None:
        """Holds nothing."""

    features: Any = property(lambda self: {})

    def map(self, function: Any = None, **_: Any) -> Any:
        self.strategy = getattr(function, "__self__", None)
        return self


def _strategy(cfg: Any, dataset: Any, tokenizer: Any) -> Any:
    """What tokenises the rows of a data set, its questions masked."""
    from axolotl.utils.data.wrappers import get_dataset_wrapper

    masked = type(cfg)({**cfg, "train_on_inputs": False, "skip_prepare_dataset": False})
    kind = dataset.type if isinstance(dataset.type, str) else ""
    if not dataset.type or kind.startswith("messages") or cfg.tokenizer_use_mistral_common:
        return None
    base, _, style = kind.partition(":")
    caught = _Catching()
    get_dataset_wrapper(dataset, tokenizer, masked, base, caught, style or None)
    return caught.strategy


def _of_chat(name: str, template: str, strategy: Any, tokenizer: Any, cfg: Any) -> Found:
    kwargs = strategy.prompter.chat_template_kwargs
    layout = chats.of(name, template, kwargs, tokenizer, cfg.eot_tokens)

    def ask(row: Mapping[str, Any]) -> Request | None:
        turns = strategy.get_conversation_thread(row)
        last = max((i for i, t in enumerate(turns) if t["role"] == "assistant"), default=0)
        said = [{key: t.get(key) for key in ("role", "content")} for t in turns[:last]]
        plain = all(set(t) <= {"role", "content", "training"} for t in turns)
        if not said or not plain or row.get("tools") or not _are_texts(said):
            return None
        return said, {}

    return Found(layout, strategy, ask)


def _are_texts(messages: list[dict[str, Any]]) -> bool:
    return all(isinstance(message["content"], str) for message in messages)


def _of_prompts(name: str, strategy: Any, tokenizer: Any, columns: Collection[str] | None) -> Found:
    stops = _stops(strategy, tokenizer)
    if name == SEGMENTS:
        prompts: dict[frozenset[str], Prompt] = {frozenset(): [Column(USER)]}
        return Found(of_prompts(name, prompts, Border(), stops), strategy, _segments)
    border = _border(tokenizer)
    if isinstance(strategy, RowStrategy) and not strategy.layout.input_format:
        told = strategy.layout
        marked: Prompt = [told.instruction or "", Column(USER), told.response or ""]
        layout = of_prompts(name, {frozenset[str](): marked}, border, stops)
        return Found(layout, strategy, lambda row: _marked(told, row))
    roles = recording.roles(strategy, columns)
    layout = of_prompts(name, recording.prompts(strategy, columns, roles), border, stops)
    return Found(layout, strategy, lambda row: _columns(strategy, roles, row))


def _stops(strategy: Any, tokenizer: Any) -> tuple[int, ...]:
    """The end of a text, and the end of a turn that rows of a template are written with."""
    told = (isinstance(strategy, RowStrategy) and strategy.layout.input_format) or ""
    ends = (word for word in never_cut(tokenizer) if told.endswith(word))
    turn = max(ends, key=len, default="")
    ids = [one(tokenizer, turn)] if turn else []
    return tuple(dict.fromkeys(i for i in [*ids, tokenizer.eos_token_id] if i is not None))


def _border(tokenizer: Any) -> Border:
    before, after = around(tokenizer)
    space = glue(tokenizer)
    return Border(
        before=tokenizer.decode(before) if before else "",
        glue=space,
        after=tokenizer.decode(after) if after else "",
        unglued=tuple(never_cut(tokenizer)) if space else (),
    )


def _columns(strategy: Any, roles: Mapping[str, str], row: Mapping[str, Any]) -> Request | None:
    """A row of columns as a request. Axolotl lays out None as a word, and our rows as nothing."""
    nothing = "" if isinstance(strategy, RowStrategy) else str(None)
    given = {role: row[name] for name, role in roles.items()}
    told = {role: nothing if value is None else str(value) for role, value in given.items()}
    more = {r: t for r, t in told.items() if r not in (USER, SYSTEM) and (given[r] or r != INPUT)}
    system = [{"role": "system", "content": told[SYSTEM]}] if given.get(SYSTEM) else []
    return [*system, {"role": "user", "content": told.get(USER, "")}], more


def _marked(layout: RowLayout, row: Mapping[str, Any]) -> Request | None:
    """A text with one mark: what stands before it was asked."""
    parts = layout.parts(row)
    if [trained for _, trained in parts] != [False, True]:
        return None
    asked = parts[0][0].removesuffix(layout.response or "")
    if layout.instruction and not asked.startswith(layout.instruction):
        return None
    return [{"role": "user", "content": asked.removeprefix(layout.instruction or "")}], {}


def _segments(row: Mapping[str, Any]) -> Request | None:
    first, *rest = row["segments"]
    if first["label"] or not rest or not rest[0]["label"]:
        return None
    return [{"role": "user", "content": first["text"]}], {}
