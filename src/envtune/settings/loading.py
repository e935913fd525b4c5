"""Layers -> Settings: every name known, every value typed, every problem at once.

Only the keys that are set exist. A name is `AXOLOTL_<KEY>`, `AXOLOTL_<KEY>__<PATH>` for a
value inside, one of envtune's own, or what a dialect has translated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.errors import Problem, Refused
from envtune.redaction import has_key_in_url, is_secret
from envtune.settings import dialects, nesting, passed_over, upstream
from envtune.settings.axolotl_keys import schema
from envtune.settings.own import OWN, SERVE_FLAG, SERVE_FLAGS
from envtune.settings.paths import FETCHED
from envtune.settings.schema import Mismatch, Node, Schema
from envtune.settings.sources import AXOLOTL, SFT, Entry, Inputs, Layer
from envtune.settings.spelling import synonyms
from envtune.settings.spelling.nearest import nearest
from envtune.settings.typed import IMPLIED, Path, Setting, Settings

# Keys that say one thing in two ways. A stronger layer's way takes the place of a weaker's.
_ALTERNATIVES = (
    {"warmup_steps", "warmup_ratio"},
    {"max_steps", "num_epochs"},
    {"save_steps", "saves_per_epoch"},
    {"eval_steps", "evals_per_epoch"},
    {"save_strategy", "save_steps"},
    {"save_strategy", "saves_per_epoch"},
    {"eval_strategy", "eval_steps"},
    {"eval_strategy", "evals_per_epoch"},
    {"batch_size", "gradient_accumulation_steps"},
    {"bf16", "fp16"},
    {"load_in_4bit", "load_in_8bit"},
    {"lora_target_linear", "lora_target_modules"},
    {"val_set_size", "test_datasets"},
    {"fsdp_config", "deepspeed"},
)
# Null in a file is a key that is not set, but for this one: then all weights are trained.
_NULL_SAYS = "adapter"
# What nobody set by hand is overridden without a word.
_SILENT = (IMPLIED, "environment", "profile", "template")


def load(inputs: Inputs) -> Settings:
    """Types every entry. Raises Refused with all problems."""
    return _Loader(schema()).load(inputs)


class _Loader:
    def __init__(self, types: Schema) -> None:
        self.types = types
        self.axolotl: dict[str, Setting] = {}
        self.own: dict[str, Setting] = {}
        self.problems: list[Problem] = []
        self.unknown: list[Problem] = []
        self.dropped: list[str] = []
        self.files: dict[str, set[str]] = {}
        self.notes: list[str] = []

    def load(self, inputs: Inputs) -> Settings:
        self.problems += inputs.problems
        self.files = passed_over.axolotls(inputs)
        layers = [(layer.name, dialects.translate(layer)) for layer in inputs.layers]
        implied = {entry.key: entry for _, translated in layers for entry in translated.implied}
        self._take(Layer(IMPLIED, tuple(implied.values())))
        for name, translated in layers:
            self.notes += translated.notes
            self.problems += translated.problems
            self.unknown += translated.unknown
            self._take(Layer(name, tuple(translated.entries)))
        unanswered = (item for _, translated in layers for item in translated.open)
        self.problems += (problem for key, problem in unanswered if key not in self.axolotl)
        for key, setting in self.axolotl.items():
            self._check_whole(key, setting)
        strict = self.own["SFT_STRICT"].value if "SFT_STRICT" in self.own else True
        if self.problems or (strict and self.unknown):
            raise Refused([*self.problems, *(self.unknown if strict else ())])
        lost = (*self.dropped, *passed_over.unread(self.axolotl, self.types))
        warnings = (*inputs.notes, *(str(p) for p in self.unknown), *lost)
        return Settings(self.axolotl, self.own, warnings, tuple(self.notes))

    def _take(self, layer: Layer) -> None:
        """Types the layer's entries, wholes before parts, and puts them over the weaker ones."""
        given = (entry for entry in layer.entries if not _is_unset(entry))
        places = sorted(filter(None, map(self._place, given)), key=_order)
        taken: dict[tuple[str, Path], str] = {}
        before = {**self.axolotl, **self.own}
        for place in places:
            try:
                self._put(place, self._typed(place), layer.name, taken)
            except Mismatch as problem:
                self.problems += problem.lines(place.entry.label, place.entry.text)
        self._replace_alternatives({place.key for place in places})
        self._report_overridden(before)

    def _replace_alternatives(self, keys: set[str]) -> None:
        """Drops what weaker layers say in another way than this one."""
        for group in _ALTERNATIVES:
            said = next((k for k in sorted(group & keys) if self._is_on(k)), None)
            for other in (group - keys) & self.axolotl.keys() if said else ():
                if self._is_on(other):
                    self._note_overridden(self.axolotl[other], self.axolotl[said or other])
                    del self.axolotl[other]

    def _is_on(self, key: str) -> bool:
        """Whether a key says anything: no warmup does, and `steps` leaves it to the number."""
        value = self.axolotl[key].value if key in self.axolotl else None
        return value not in (None, False, "steps") or (value == 0 and key.startswith("warmup_"))

    def _report_overridden(self, before: Mapping[str, Setting]) -> None:
        for key, old in before.items():
            new = self.axolotl.get(key) or self.own.get(key)
            if new is not None and new is not old and new.value != old.value and not new.parts:
                self._note_overridden(old, new)

    def _note_overridden(self, old: Setting, new: Setting) -> None:
        if old.layer not in _SILENT:
            by = new.name if new.name != old.name else f"{new.name} of the {new.layer}"
            self.notes.append(f"{by} takes the place of {old.name}")

    def _typed(self, place: "_Place") -> Any:
        entry, node = place.entry, place.node
        # By hand a name that Axolotl would drop is a mistake; a file was written for Axolotl.
        axolotls = place.key not in OWN and entry.document in self.files
        types = self.types.loose if axolotls else self.types
        if entry.structured:
            return types.accept(entry.value, node)
        return types.parse(entry.text, node)

    def _place(self, entry: Entry) -> "_Place | None":
        """Where an entry belongs, or None when it has been noted as a problem."""
        name = entry.key or entry.name
        secret = name in OWN and is_secret(name)  # as a whole, so that no record holds it
        if has_key_in_url(entry.text) and not (secret or _is_fetched(entry)):
            message = (
                "holds a URL with a user, password or key; use the tool's own variable for those"
            )
            self.problems.append(Problem(entry.label, message))
            return None
        if (own := entry.key or entry.name) in OWN:
            return _Place(entry, own, (), OWN[own].node)
        if (flag := own.removeprefix(SERVE_FLAG).lower()) in _served(own):
            return _Place(entry, SERVE_FLAGS, (flag,), _served(own)[flag])
        key, *parts = _spelled(entry)
        if key not in self.types.fields:
            if line := self._dropped(entry, key):
                self.dropped.append(f"{entry.label}: {line}")
            else:
                self.unknown.append(_unknown(entry, self.types))
            return None
        try:
            path, node = self.types.at(self.types.fields[key], parts)
        except Mismatch as problem:
            self.problems.append(problem.told(entry.name, entry.text))
            return None
        return _Place(entry, key, path, node)

    def _dropped(self, entry: Entry, key: str) -> str:
        """What to say of a name that Axolotl drops; empty where it has to be another one.

        A file of Axolotl's may hold any; a variable is set by hand and has to be one of a list.
        """
        line = passed_over.dropped(key)
        if line or entry.document not in self.files:
            return line
        return passed_over.unheard(key, self.types, self.files[entry.document])

    def _put(
        self, place: "_Place", value: Any, layer: str, taken: dict[tuple[str, Path], str]
    ) -> None:
        name, settings = place.entry.label, self.own if place.key in OWN else self.axolotl
        weaker, parts = settings.get(place.key), {}
        for leaf in nesting.leaves(value, place.path):
            if other := nesting.overlap(place.key, leaf, taken):
                raise Mismatch((), value, f"one variable for one value; {other} sets it too")
            taken[place.key, leaf] = name
        if place.path:
            value = nesting.put(weaker.value if weaker else None, place.path, value)
            parts = {**(weaker.parts if weaker else {}), place.path: name}
            name = _whole(place.key, parts)
        if weaker is not None and weaker.layer == layer:
            weaker = weaker.weaker  # another part of the same layer's value
        settings[place.key] = Setting(value, name, layer, parts, weaker)

    def _check_whole(self, key: str, setting: Setting) -> None:
        """A value built from parts has to be allowed as a whole too."""
        if isinstance(setting.value, list | dict):
            try:
                self.types.loose.accept(setting.value, self.types.fields[key])
            except Mismatch as problem:
                several = (problem, *problem.more)
                self.problems += (one.told(setting.at(*one.path), "") for one in several)


@dataclass(frozen=True)
class _Place:
    """An entry, the key and path that its name spells, and the node there."""

    entry: Entry
    key: str
    path: Path
    node: Node


def _order(place: _Place) -> tuple[str, list[tuple[bool, str | int]]]:
    """Wholes before parts, and indices as numbers: 2 before 10."""
    return place.key, [(isinstance(part, str), part) for part in place.path]


def _spelled(entry: Entry) -> list[str]:
    """The key and the path that a name spells; what spells none is no key of Axolotl's."""
    if entry.key:
        return entry.key.split(".")
    if entry.document:
        return [entry.name]
    named = entry.name.startswith(AXOLOTL) and entry.name == entry.name.upper()
    return entry.name.removeprefix(AXOLOTL).lower().split("__") if named else [""]


def _is_fetched(entry: Entry) -> bool:
    """Whether an address in it is fetched and shown without its key (`transfer.remote`)."""
    return _spelled(entry)[0] in FETCHED


def _whole(key: str, parts: Mapping[Path, str]) -> str:
    """What to call a value built from parts: the names behind it, or Axolotl's variable."""
    names = list(dict.fromkeys(parts.values()))
    ours = any(name.startswith(AXOLOTL) for name in names)
    return AXOLOTL + key.upper() if ours else ", ".join(names)


def _is_unset(entry: Entry) -> bool:
    """Whether a file has the key and no value, as Axolotl's examples have many."""
    bare = entry.document and not entry.made and entry.value is None
    return bool(bare and (entry.key or entry.name) != _NULL_SAYS)


def _unknown(entry: Entry, types: Schema) -> Problem:
    hint: str | None
    key = synonyms.meant(entry.name.upper().removeprefix(AXOLOTL).removeprefix(SFT))
    if key and entry.name.upper() not in _names(types):
        in_document = entry.document or key not in types.fields
        hint = key if in_document else AXOLOTL + key.upper()
    elif entry.document:
        hint = nearest(entry.name, [*types.fields, *dialects.flags(), *OWN])
    elif entry.name.startswith(SFT) and entry.name.removeprefix(SFT).lower() in types.fields:
        hint = AXOLOTL + entry.name.removeprefix(SFT)
    else:
        hint = nearest(entry.name.upper(), list(_names(types)))
    return Problem(entry.label, f"no such setting{f'; did you mean {hint}?' if hint else ''}")


def _served(name: str) -> Mapping[str, Node]:
    """vLLM's flags, where the name is of one of its variables."""
    return upstream.vllm()["flags"] if name.startswith(SERVE_FLAG) else {}


def _names(types: Schema) -> Iterator[str]:
    yield from (AXOLOTL + key.upper() for key in types.fields)
    yield from (SFT + flag.upper() for flag in dialects.flags())
    yield from upstream.axolotl()["reserved"]
    yield from OWN
    yield from (SERVE_FLAG + flag.upper() for flag in upstream.vllm()["flags"])
