"""Chat templates: which one lays a data set out, and what it makes of a conversation.

minijinja renders what transformers' jinja2 renders in a fraction of the time. What it refuses
jinja2 decides, and what it renders otherwise on a data set's first rows jinja2 renders.
"""

import datetime
import functools
import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune.engine.data.tokenizer import Loaded

_OWN, _JINJA, _FALLBACK = "tokenizer_default", "jinja", "tokenizer_default_fallback_"
_DEFAULT_SYSTEM = "You are a helpful assistant."
# What only says where an answer is; a block of its own scope, as it is in transformers.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
_COMPARED = 16

Turns = Sequence[Mapping[str, Any]]


class Refusal(Exception):
    """A template raises an error for a conversation."""


@functools.cache
def _axolotl() -> Path:
    """Where Axolotl lies, which needs no import."""
    found = importlib.util.find_spec("axolotl")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0])


def source(keys: Mapping[str, Any], config: Mapping[str, Any], loaded: Loaded) -> str | None:
    """The template of a data set, or None where none is found.

    As axolotl.utils.chat_templates finds it after its validation: a data set that names none has
    the tokenizer's, which the configuration's takes the place of.
    """
    named = keys.get("chat_template") or _OWN
    if not str(named).startswith(_OWN):
        return _named(named, keys.get("chat_template_jinja"), loaded.chat_template)
    chosen = config.get("chat_template") or (config.get("chat_template_jinja") and _JINJA)
    own = loaded.chat_template
    if chosen:
        own = _named(chosen, config.get("chat_template_jinja"), own)
        if own and chosen == "chatml" and config.get("default_system_message"):
            own = own.replace(_DEFAULT_SYSTEM, config["default_system_message"])
    return _named(named, None, own)


def _named(name: str, text: str | None, own: str | None) -> str | None:
    if name == _JINJA:
        return Path(text).read_text() if text and Path(text[:4096]).is_file() else text
    if name == _OWN or (own and name.startswith(_FALLBACK)):
        return own
    path = _axolotl() / "utils/chat_templates/templates" / f"{name.removeprefix(_FALLBACK)}.jinja"
    return path.read_text() if path.is_file() else None


def message_variables(template: str, field: str) -> set[str]:
    """The keys of a message that a template reads, as Axolotl's own analyzer finds them."""
    path = _axolotl() / "prompt_strategies/jinja_template_analyzer.py"
    spec = importlib.util.spec_from_file_location("envtune_jinja_template_analyzer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: set[str] = module.JinjaTemplateAnalyzer(template).get_message_vars(field)
    return found


class Template:
    """A chat template with its tokenizer's special tokens. `slow`: why jinja2 renders it."""

    def __init__(self, text: str, special: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        self.text = text
        self.values = {"documents": None, "add_generation_prompt": False, **special, **more}
        self.now = datetime.datetime.now()
        self.exact = _jinja2(text, self._strftime)
        self.fast, self.slow = _minijinja(text, self._strftime)
        self.compared = 0

    @property
    def settled(self) -> bool:
        """Whether it is decided who renders."""
        return self.fast is None or self.compared >= _COMPARED

    def settle(self, slow: str | None) -> None:
        """Takes what was decided elsewhere."""
        self.compared = _COMPARED
        if slow:
            self.fast, self.slow = None, slow

    def _strftime(self, form: str) -> str:
        return self.now.strftime(form)

    def render(self, turns: Turns, tools: Any) -> str:
        """A conversation as text. Raises Refusal where the template refuses it."""
        if self.fast is None:
            return self._exact(turns, tools)
        try:
            text: str = self.fast(messages=turns, tools=tools, **self.values)
        except Exception:  # whatever it is that minijinja has otherwise
            return self._exact(turns, tools)
        if self.compared < _COMPARED:
            self.compared += 1
            if (exact := self._exact(turns, tools)) != text:
                self.fast, self.slow = None, "minijinja made another text of a row"
                return exact
        return text

    def _exact(self, turns: Turns, tools: Any) -> str:
        try:
            text: str = self.exact(messages=turns, tools=tools, **self.values)
        except Exception as error:  # a template is a program: any error may be its own
            raise Refusal(f"{type(error).__name__}: {error}") from error
        return text


def _jinja2(text: str, strftime: Callable[[str], str]) -> Callable[..., str]:
    """The environment of transformers.utils.chat_template_utils, without what counts answers."""
    import jinja2
    from jinja2 import ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        tags = {"generation"}  # noqa: RUF012  # jinja2's own way

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller: Callable[[], str]) -> str:
            return caller()

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    env.filters["tojson"] = _tojson

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    env.globals |= {"raise_exception": refuse, "strftime_now": strftime}
    return env.from_string(text).render


def _minijinja(text: str, strftime: Callable[[str], str]) -> tuple[Any, str | None]:
    import minijinja

    def refuse(message: str) -> None:
        raise ValueError(message)

    env = minijinja.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        auto_escape_callback=lambda name: False,
        debug=False,
        templates={"chat": _GENERATION.sub(r"\1\2with\3", text)},
        filters={"tojson": _tojson},
        globals={"raise_exception": refuse, "strftime_now": strftime},
    )
    try:
        env.undeclared_variables_in_template("chat")
    except minijinja.TemplateError as error:
        return None, str(error)
    return functools.partial(env.render_template, "chat"), None


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
