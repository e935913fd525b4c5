"""What --env-file does to lines as people write them: it knows no quotes, no comments, no CR.

Each byte after `=` is the value and each before it the name. A number, a flag or JSON is meant
without what stands round it and is taken so, with a note. A text or a path may have been meant
as it is: it is refused in one line, whatever it would have led to.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from envtune import redaction
from envtune.errors import Problem
from envtune.settings import upstream

# Other tools' variables that a start hangs on: a token in quotes is a night lost.
_WATCHED = re.compile(
    r"(HF|HUGGING_?FACE|WANDB|MLFLOW|COMET|AWS|VLLM|RUNPOD|MASTER|CUDA_VISIBLE|AZURE|GOOGLE)_?\w*"
    r"|NNODES|NODE_RANK|NPROC|WORLD_SIZE|RANK|LOCAL_RANK"
)
# Texts that may hold a `#` and end in a comma.
_PROSE = re.compile(r".*(MESSAGE|NOTES|FORMAT|PROMPT|JINJA|(RESPONSE|INSTRUCTION)_TEMPLATE|SEP)")
_QUOTES = ('""', "''", "“”", "‘’", "„“", "``")  # noqa: RUF001  # what an editor makes of quotes
# What an editor puts before the first name, as it is and as bytes that are no UTF-8.
_MARKS = "\ufeff\udcff\udcfe"
_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")
_BEFORE = re.compile(r"^(export|set|env|declare|-e|--env)\s+")
_COMMENT = re.compile(r"\s#(\w)?")
# The names of things have no blanks round them; a text of a prompt may.
_THINGS = re.compile(r".*(MODEL|PATH|DIR|FILE|ROOT|VENV|_ID|PROJECT|ENTITY|TOKEN|KEY|RELPATH|NAME)")
# Keys that are variables of other tools too.
_OTHERS = ("wandb_", "mlflow_", "comet_", "hf_", "hub_", "local_", "ddp_", "otel_", "use_")
_NUMBERS = re.compile(r"[-+]?[\d.][\d.eE+-]*(\s*,\s*[-+]?[\d.][\d.eE+-]*)*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "none"}


@dataclass(frozen=True)
class Slip:
    """What a value would be without what --env-file keeps of the line, and that in words."""

    bare: str
    what: str
    fix: str


def mended(
    environ: Mapping[str, str], ours: Callable[[str], bool]
) -> tuple[dict[str, str], list[str], list[Problem]]:
    """`environ` as it was meant where that is sure, a note for each change, and a problem for each
    variable that is none or holds more than its text. `ours` tells a setting's name."""
    found, notes, problems = dict(environ), [], []
    for name, text in environ.items():
        wanted = _bare_name(name)
        if wanted != name and (ours(wanted.upper()) or _WATCHED.fullmatch(wanted)):
            problems.append(Problem(name, _named(name, wanted)))
            del found[name]
        elif (ours(name) or _WATCHED.fullmatch(name)) and (slip := slipped(name, text)):
            if is_typed(slip.bare):
                found[name] = slip.bare
                notes.append(f"{name} {slip.what}, which --env-file keeps; taken without")
            else:
                problems.append(Problem(name, _told(name, slip)))
                del found[name]
    return found, notes, problems


def unprefixed(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that is a key of Axolotl's but for its prefix. Nobody reads it."""
    keys = upstream.axolotl()["fields"]
    for name in environ:
        key = name.lower()
        if name.isupper() and "_" in key and key in keys and not key.startswith(_OTHERS):
            yield f"{name} is no setting and passed over; did you mean AXOLOTL_{name}?"


def slipped(name: str, text: str) -> Slip | None:
    """What stands round a value and was not meant, or None. Several are told as the outermost."""
    bare, told = text, []
    for look in _looks(name.upper()) if text.strip() else ():
        if slip := look(bare):
            bare = slip.bare
            told.append(slip)
    return Slip(bare, told[0].what, told[0].fix) if told else None


def is_typed(text: str) -> bool:
    """Whether a text is a number, a flag, null or JSON: nothing that a blank or a quote is part
    of. Nothing at all is not set."""
    if not text or text.lower() in _WORDS or _NUMBERS.fullmatch(text):
        return True
    if not text.startswith(("[", "{")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _carriage(text: str) -> Slip | None:
    bare = text.rstrip("\r")
    what = "ends in a CR: its file has the line ends of Windows (CR LF)"
    return Slip(bare, what, "save the file with LF") if bare != text else None


def _blanks(text: str) -> Slip | None:
    bare = text.strip(" \t")
    # What types a value passes blanks over.
    kept = bare != text and not is_typed(bare)
    return Slip(bare, "has blanks round it", "take them out") if kept else None


def _comma(text: str) -> Slip | None:
    """A comma at the end, as of a line of JSON. A list may have it, and a sentence."""
    bare = text.rstrip().removesuffix(",")
    meant = is_typed(bare) or _quotes(bare) is not None or not re.search(r"[\s,]", bare)
    ended = text.rstrip().endswith(",") and meant
    return Slip(bare, "ends in a comma", "take it out") if ended else None


def _comment(text: str) -> Slip | None:
    """A comment after one word, one quoted text or JSON; a sentence may hold a `#`, and a name."""
    match = _COMMENT.search(text)
    bare = text[: match.start()].rstrip() if match else ""
    one = match is not None and not match[1] and not re.search(r"\s", bare)
    if not bare or bare.startswith("#") or not (one or is_typed(bare) or _quotes(bare)):
        return None
    return Slip(bare, "has a comment at its end", "put the comment on a line of its own")


def _quotes(text: str) -> Slip | None:
    """Quotes round the whole, or one at the beginning that no other ends."""
    for pair in _QUOTES:
        first, last = pair[0], pair[1]
        inside = text[1:-1]
        whole = len(text) > 1 and text.startswith(first) and text.endswith(last)
        if whole and (is_typed(inside) or not {first, last} & set(inside.replace(f"\\{last}", ""))):
            return Slip(inside, "is wrapped in quotes", "take them out")
    if text.startswith('"') and text.count('"') == 1:
        what = "begins with a quote that nothing ends: a value is one line"
        return Slip(text[1:], what, "write line breaks as \\n, or use the setting's file")
    return None


def _looks(name: str) -> Iterator[Callable[[str], Slip | None]]:
    """What is looked for in the value of a name, from the outside in."""
    yield _carriage
    if _THINGS.fullmatch(name):
        yield _blanks
    if not _PROSE.fullmatch(name):
        yield from (_comma, _comment)
    yield _quotes


def _bare_name(name: str) -> str:
    bare = name.lstrip(_MARKS).strip().strip("\"'")
    return _BEFORE.sub("", bare).strip()


def _named(name: str, wanted: str) -> str:
    if name.startswith(_UTF16):
        return "the env file is UTF-16; save it as UTF-8"
    if name[0] in _MARKS:
        why = "a byte order mark stands before the name; save the file as UTF-8 without BOM"
    elif _BEFORE.match(name.strip()):
        word = name.split(maxsplit=1)[0]
        why = f"--env-file takes `{word}` for a part of the name"
    else:
        why = "--env-file takes what stands before = for the name, blanks and quotes too"
    return f"{why}; write {wanted}=..."


def _told(name: str, slip: Slip) -> str:
    shown = redaction.hidden({name: slip.bare})[name]
    kept = "which --env-file keeps as a part of the value"
    return f"{slip.what}, {kept}; {slip.fix}: {name}={shown}"
