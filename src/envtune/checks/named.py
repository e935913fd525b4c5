"""What the settings name and a later stage opens: there, and of the kind that is wanted.

Axolotl finds out after half a minute of imports, in words that name no variable.
"""

import glob
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from envtune.artifacts import checkpoints, manifests
from envtune.errors import Exit, Problem
from envtune.files import parse
from envtune.resolve.config import Facts
from envtune.resolve.facts import READERS
from envtune.resolve.parallel import PRESET
from envtune.settings import documents, upstream
from envtune.settings.own.training import LATEST, OFF, RESUME_FROM, RUN_NAME
from envtune.settings.paths import DATASETS, near_file
from envtune.settings.spelling.nearest import nearest
from envtune.settings.typed import Setting, Settings

_CHECKPOINT = "trainer_state.json"
# What others say in the place of a checkpoint's path.
_WORDS = {
    **dict.fromkeys(("latest", "true"), f"unset it: {RESUME_FROM}={LATEST} is the default"),
    **dict.fromkeys(("off", "false"), f"what is to begin anew is told by {RESUME_FROM}={OFF}"),
}


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Every file, folder and plugin that is named and not there."""
    yield from _templates(settings)
    yield from _deepspeed(settings)
    yield from _checkpoint(settings)
    yield from _plugins(settings)
    yield from _data_files(settings)
    yield from _streamed(settings)
    yield from _served(settings, facts)


def _set(settings: Settings, key: str) -> Setting | None:
    setting = settings.axolotl.get(key)
    return setting if setting is not None and setting.value else None


def _templates(settings: Settings) -> Iterator[Problem]:
    """Chat templates of the user's own: a file, or a text that Jinja can read."""
    if named := _set(settings, "chat_template_jinja"):
        yield from _template(named.name, named.value)
    for setting, index, item in _items(settings):
        if text := item.get("chat_template_jinja"):
            yield from _template(setting.at(index, "chat_template_jinja"), text)


def _template(name: str, text: str) -> Iterator[Problem]:
    if "{" in text or "\n" in text:
        yield from _syntax(name, text, "")
    elif not os.path.isfile(text):
        yield Problem(name, f"{text} is no template and no file that is there{near_file(text)}")
    else:
        try:
            yield from _syntax(name, documents.read_text(Path(text)), f"{text}: ")
        except documents.DocumentError as error:
            yield Problem(name, str(error))


def _syntax(name: str, text: str, where: str) -> Iterator[Problem]:
    """What Jinja cannot read, with the tags that transformers adds."""
    import jinja2

    # A block of transformers' own, of which only the ends count here.
    plain = re.sub(r"\{%(-?)\s*(end)?generation\s*(-?)%\}", "", text)
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except jinja2.TemplateSyntaxError as error:
        yield Problem(name, f"{where}is no Jinja at line {error.lineno}: {error.message}")
    except RecursionError:
        yield Problem(name, f"{where}is nested too deeply")


def _deepspeed(settings: Settings) -> Iterator[Problem]:
    given = _set(settings, "deepspeed")
    if given is None or not isinstance(given.value, str):
        return
    text = given.value.strip()
    if text.startswith("{"):
        try:
            parse(text)
        except ValueError as error:
            yield Problem(given.name, f"is no JSON: {error}")
    elif not os.path.isfile(text):
        stage = next((f"zero{n}" for n in (3, 2) if f"zero{n}" in text), "zero2")
        fix = f"unset it and set {PRESET}={stage}, for which envtune writes one"
        yield Problem(given.name, f"{text} is not there{near_file(text)}; or {fix}")


def _checkpoint(settings: Settings) -> Iterator[Problem]:
    given = _set(settings, "resume_from_checkpoint")
    if given is None or not isinstance(given.value, str):
        return
    folder = Path(given.value)
    if not os.path.isdir(folder):  # False for a name that is too long, too
        fix = f"; {_WORDS[word]}" if (word := folder.name.lower()) in _WORDS else ""
        yield Problem(given.name, f"{folder} is not there{fix or near_file(given.value)}")
    elif not (folder / _CHECKPOINT).is_file():
        inside = sorted(folder.glob(f"*/{_CHECKPOINT}"))
        hint = f"; {inside[-1].parent} has one" if inside else ""
        yield Problem(given.name, f"{folder} is no checkpoint (no {_CHECKPOINT}){hint}")
    elif not isinstance(checkpoints.state(folder).get("global_step"), int):
        yield Problem(given.name, f"{folder / _CHECKPOINT} tells of no step: it is damaged")
    elif (folder / manifests.MANIFEST).exists() and not checkpoints.committed(folder):
        told = f"{folder} is not whole: its files are not those of its {manifests.MANIFEST}"
        yield Problem(given.name, f"{told}; name another checkpoint")
    else:
        yield from _beyond(settings, given)


def _beyond(settings: Settings, given: Setting) -> Iterator[Problem]:
    """A step behind the last one, where the settings say which that is."""
    last, step = _set(settings, "max_steps"), checkpoints.state(Path(given.value))["global_step"]
    if last is not None and 0 < last.value < step:
        what = f"{given.value} is of step {step} and {last.name} is {last.value}"
        yield Problem(given.name, f"{what}; raise that, or name an earlier checkpoint")


def _plugins(settings: Settings) -> Iterator[Problem]:
    given = _set(settings, "plugins")
    known = upstream.axolotl()["plugins"]
    for index, path in enumerate(given.value if given and isinstance(given.value, list) else ()):
        if path in known or (given and _is_there(str(path))):
            continue
        hint = nearest(str(path), known)
        what = f"there is no {path}" + (f"; did you mean {hint}?" if hint else "")
        yield Problem(given.at(index) if given else "", what)


def module_spec(top: str) -> ModuleSpec | None:
    """Where a package or a module lies that an import would find; it is not imported."""
    try:
        return importlib.util.find_spec(top) if top.isidentifier() else None
    except ValueError:  # __main__ has none
        return None


def _is_there(plugin: str) -> bool:
    """Whether a module holds the name, told by its text: importing it would take seconds."""
    module, _, name = plugin.rpartition(".")
    top, *inner = module.split(".")
    spec = module_spec(top)
    if spec is None:
        return top == "axolotl"  # where the engine is not installed nothing can be told
    roots = list(spec.submodule_search_locations or ())
    found = [f"{root}/{'/'.join(inner)}" for root in roots]
    files = [*(f"{path}.py" for path in found if inner), *(f"{path}/__init__.py" for path in found)]
    files += [spec.origin] if spec.origin and not inner else []
    texts = [Path(file).read_text(errors="replace") for file in files if os.path.isfile(file)]
    return any(re.search(rf"\b{re.escape(name)}\b|import \*", text) for text in texts)


def _items(settings: Settings) -> Iterator[tuple[Setting, int, Mapping[str, Any]]]:
    """Every data set that is described: the setting, its index, what is said of it."""
    for key in DATASETS:
        given = _set(settings, key)
        for index, item in enumerate(
            given.value if given and isinstance(given.value, list) else ()
        ):
            if given and isinstance(item, Mapping):
                yield given, index, item


def _data_files(settings: Settings) -> Iterator[Problem]:
    """Files beside a local folder, which Axolotl looks up from the folder of the run."""
    for setting, index, item in _items(settings):
        files, path = item.get("data_files"), str(item.get("path", ""))
        named = [files] if isinstance(files, str) else list(files or ())
        local = [file for file in named if "://" not in file]
        if path in READERS and local:
            what = (
                f"{path} is a reader of the datasets library, which Axolotl takes for a repository"
            )
            fix = f"write the file as the path, {os.path.relpath(local[0])}, without data_files"
            yield Problem(setting.at(index, "path"), f"{what}; {fix}", Exit.DATA)
        for file in local if path.startswith("/") else ():
            if not (os.path.exists(file) or glob.glob(file, recursive=True)):
                what = f"{file} is not there{near_file(file)}"
                yield Problem(setting.at(index, "data_files"), what, Exit.DATA)


def _streamed(settings: Settings) -> Iterator[Problem]:
    """Local rows that are streamed; the others are looked at with their columns."""
    given = _set(settings, "pretraining_dataset")
    for index, item in enumerate(given.value if given and isinstance(given.value, list) else ()):
        path = str(item.get("path") or "") if isinstance(item, Mapping) else str(item)
        if given and path.startswith("/") and not os.path.exists(path):
            what = f"{path} is not there{near_file(path)}"
            yield Problem(given.at(index, "path"), what, Exit.DATA)


def _served(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """A model that is served in place of what is trained: below the folder of the runs."""
    path = settings.get("SFT_SERVED_MODEL_RELPATH")
    if not path or not settings.get("SFT_SERVE"):
        return
    output_dir = settings.axolotl.get("output_dir")
    root = os.path.dirname(str(output_dir.value)) if output_dir else facts.outputs
    folder, first = os.path.join(root, path), path.split("/")[0]
    made = re.match(RUN_NAME, first) or (output_dir and str(output_dir.value).endswith(f"/{first}"))
    if not made and not os.path.isfile(f"{folder}/config.json"):
        name = settings.own["SFT_SERVED_MODEL_RELPATH"].name
        yield Problem(
            name, f"{folder} holds no model{near_file(folder)}; unset it to serve the run"
        )
