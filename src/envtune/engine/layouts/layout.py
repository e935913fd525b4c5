"""A layout: how a conversation becomes the text that training put before an answer.

It is written as a chat template, since that is what a server lays chats out by. What was not
trained is refused by the template itself: vLLM answers 400 with its words. Every text stands
in an expression: Jinja trims what is bare.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envtune.artifacts.layouts import CHAT

TEXT = "/v1/completions"
USER, INPUT, SYSTEM = "user", "input", "system"


@dataclass(frozen=True)
class Column:
    """A place in a prompt that a request fills: its message or, by a name, another text."""

    role: str


Prompt = Sequence[str | Column]


@dataclass(frozen=True)
class Layout:
    """`name` is the type of the data. `template` lays a chat out, or refuses it in the words of
    `reason`. `begins` is what stands before an answer, `stops` the ids that end one. `columns`
    are what a request may name besides its messages."""

    name: str
    template: str
    reason: str = ""
    begins: str = ""
    stops: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    system: bool = False

    @property
    def chat(self) -> bool:
        return not self.reason

    @property
    def example(self) -> dict[str, Any]:
        """The call that is right: its path, and its body without the model's name."""
        if not self.chat:
            return {"path": TEXT, "body": {"prompt": "..."}}
        told = self.system and not self.name.startswith("chat_template")  # a chat need not have it
        messages = [{"role": "system", "content": "..."}] if told else []
        messages.append({"role": "user", "content": "..."})
        more = {"chat_template_kwargs": dict.fromkeys(self.columns, "...")} if self.columns else {}
        return {"path": CHAT, "body": {"messages": messages, **more}}


@dataclass(frozen=True)
class Border:
    """What the tokenizer has around a prompt: texts, and those before which it glues nothing."""

    before: str = ""
    glue: str = ""
    after: str = ""
    unglued: tuple[str, ...] = ()


def literal(text: str) -> str:
    """A Jinja string. Letters that are not ASCII stay as they are: escapes of surrogates would
    become halves of letters."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r") + "'"


def refusing(name: str, reason: str, stops: tuple[int, ...]) -> Layout:
    """The layout of what cannot be asked as a chat."""
    words = literal(f"{reason} ({name}): send the whole prompt as text to {TEXT}")
    return Layout(name, f"{{{{- raise_exception({words}) -}}}}", reason, stops=stops)


def of_prompts(
    name: str, prompts: Mapping[frozenset[str], Prompt], border: Border, stops: tuple[int, ...]
) -> Layout:
    """The layout of a type that asks and answers once. `prompts`: one for each set of the roles
    that need not be there, system and input, that are."""
    roles = {
        part.role for prompt in prompts.values() for part in prompt if isinstance(part, Column)
    }
    roles |= {role for given in prompts for role in given}
    more = sorted(roles - {USER, SYSTEM, INPUT})
    columns = [*([INPUT] if INPUT in roles else []), *more]
    lines = [*_asked(roles), *_columns(more), *_texts(prompts, roles), *_written(border)]
    return Layout(
        name=name,
        template="\n".join(lines),
        begins=_last(prompts),
        stops=stops,
        columns=tuple(columns),
        system=SYSTEM in roles,
    )


def _last(prompts: Mapping[frozenset[str], Prompt]) -> str:
    part = next(iter(prompts.values()))[-1]
    return part if isinstance(part, str) else ""


def _asked(roles: set[str]) -> list[str]:
    """Takes the messages apart, and refuses those that no row had."""
    most = 2 if INPUT in roles else 1
    turns = "one user message" + (" and its input" if most == 2 else "")
    system = [] if SYSTEM in roles else [_refuse("system", "no system message was trained")]
    return [
        _refuse("tools", "no tools were trained"),
        "{%- set system = messages[0]['content'] if messages and messages[0]['role'] == 'system'"
        " else '' -%}",
        "{%- set turns = messages[1:] if messages and messages[0]['role'] == 'system'"
        " else messages -%}",
        *system,
        "{%- set answered = turns and turns[-1]['role'] == 'assistant' -%}",
        "{%- set asked = turns[:-1] if answered else turns -%}",
        _refuse(
            f"not 0 < asked | length <= {most} or asked[0]['role'] != 'user'"
            " or asked[-1]['role'] != 'user'",
            f"{turns} was trained, and no conversation of several turns",
        ),
        "{%- set user = asked[0]['content'] -%}",
        *(["{%- set context = asked[1]['content'] if asked | length == 2 else input | default('')"
           " -%}"] if most == 2 else []),
    ]  # fmt: skip


def _refuse(condition: str, words: str) -> str:
    return f"{{%- if {condition} -%}}{{{{- raise_exception({literal(words)}) -}}}}{{%- endif -%}}"


def _columns(names: Sequence[str]) -> list[str]:
    """A column that every row had has to be told: the chat has no place for it."""
    return [
        _refuse(f"{n} is not defined", f"every row had {n}: name it in chat_template_kwargs")
        for n in names
    ]


def _texts(prompts: Mapping[frozenset[str], Prompt], roles: set[str]) -> list[str]:
    """The text by what is there, the fullest first."""
    lines, word = [], "if"
    for given in sorted(prompts, key=lambda roles: (-len(roles), sorted(roles))):
        told = " and ".join("context" if role == INPUT else role for role in sorted(given))
        lines.append(f"{{%- {word} {told} -%}}" if given else "{%- else -%}")
        lines.append(f"{{%- set text = {_expression(prompts[given])} -%}}")
        word = "elif"
    return lines[1:] if len(prompts) == 1 else [*lines, "{%- endif -%}"]


def _expression(prompt: Prompt) -> str:
    names = {INPUT: "context"}
    parts = [
        literal(part) if isinstance(part, str) else names.get(part.role, part.role)
        for part in prompt
    ]
    return " ~ ".join(["''", *parts])


def _written(border: Border) -> list[str]:
    begin = f"{{{{- {literal(border.before)} -}}}}" if border.before else ""
    if border.glue:
        stays = ", ".join(map(literal, (border.glue, "\u2581", *border.unglued)))
        glued = f"'' if text.startswith(({stays},)) else {literal(border.glue)}"
        begin += f"{{{{- {glued} -}}}}"
    end = f"{{{{- {literal(border.after)} -}}}}" if border.after else ""
    answer = "{%- if answered -%}{{- turns[-1]['content'] -}}"
    whole = "{%- if not add_generation_prompt -%}{{- eos_token -}}{%- endif -%}{%- endif -%}"
    return [begin + "{{- text -}}" + end, answer + whole]


def with_defaults(template: str, values: Mapping[str, Any]) -> str:
    """A template with what training told it, where a request does not."""
    told = (
        f"{{%- if {name} is not defined -%}}{{%- set {name} = {_jinja(value)} -%}}{{%- endif -%}}"
        for name, value in values.items()
        if re.fullmatch(r"[A-Za-z_]\w*", name)
    )
    return "".join(told) + template


def _jinja(value: Any) -> str:
    return literal(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def with_generation(template: str, begins: str) -> str:
    """A template whose answers begin with `begins`, in place of its own words for that."""
    template = template.removesuffix("\n")
    own = "{% set asked_to_answer = add_generation_prompt %}{% set add_generation_prompt = false %}"
    written = f"{{{{ {literal(begins)} }}}}" if begins else ""
    return f"{own}{template}{{% if asked_to_answer %}}{written}{{% endif %}}"
