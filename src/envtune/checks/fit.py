"""Whether model, data and settings fit each other: layers, chat template, loader, rows."""

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from envtune.artifacts import modelfiles
from envtune.checks import quantisable
from envtune.errors import Exit, Problem
from envtune.resolve import data as data_types
from envtune.resolve import method, packing
from envtune.resolve.config import Facts
from envtune.resolve.facts import count_rows
from envtune.settings.spelling.nearest import nearest
from envtune.settings.typed import Settings

# What loads weights that are packed by another tool, by config.json's quant_method: modules.
_LOADERS = {
    "gptq": ("optimum", "gptqmodel"), "awq": ("gptqmodel",), "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",), "hqq": ("hqq",), "aqlm": ("aqlm",),
    "vptq": ("vptq",), "torchao": ("torchao",), "higgs": ("flute",), "spqr": ("spqr_quant",),
    "auto-round": ("auto_round",), "quark": ("quark",), "fouroversix": ("fouroversix",),
    "sinq": ("sinq",),
}  # fmt: skip
_TARGETS = ("lora_target_modules", "lora_modules_to_save")
_ADAPTERS = ("lora", "qlora")
_ALL = "all-linear"
_OUTPUT = "lm_head"  # tied to the embedding, it is in no file
# A group that repeats, or many repetitions, may take exponential time.
_ENDLESS = re.compile(r"\)[*+{]|([*+][^*+]*){5}")
_PREFIXES = ("", "model.", "transformer.", "base_model.")


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """What the engine would refuse once all its libraries are loaded."""
    yield from _held_back(settings, facts)
    yield from _untemplated(settings, facts)
    yield from model_problems(settings, facts)
    for name, missing, known, whole in _unfit(settings, facts):
        if whole:
            yield Problem(name, f"{_listed(missing)} fits no layer of the model; {known}")


def model_problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Models that cannot be loaded here, or not trained as is asked."""
    yield from _unloadable(settings, facts)
    asked, kind = settings.axolotl.get("sample_packing"), facts.model.config.get("model_type")
    if asked is not None and asked.value and kind in packing.MIXING and not _flash(settings):
        what = f"{facts.model.path} is a model ({kind}) that lets packed documents see each other"
        yield Problem(asked.name, f"{what} but by flash attention; set {asked.name}=false")


def _flash(settings: Settings) -> bool:
    attention = settings.axolotl.get("attn_implementation")
    return attention is not None and packing.is_flash(attention.value)


def _unloadable(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Weights that another tool has packed and nothing here can load."""
    packed = facts.model.config.get("quantization_config")
    method = str(packed.get("quant_method", "")) if isinstance(packed, dict) else ""
    engine = importlib.util.find_spec("axolotl")
    lost = [m for m in _LOADERS.get(method, ()) if importlib.util.find_spec(m) is None]
    if engine is not None and lost:
        what = f"{facts.model.path} is quantised by {method}, and {' and '.join(lost)}, which loads"
        fix = "it, is not installed; take the model before that, and adapter qlora"
        yield Problem(settings.axolotl["base_model"].name, f"{what} {fix}")


def warnings(settings: Settings, facts: Facts) -> Iterator[str]:
    """Targets of LoRA that PEFT drops in silence, since others fit."""
    for name, missing, known, whole in _unfit(settings, facts):
        if not whole:
            yield f"{name}: {_listed(missing)} fits no layer of the model and is dropped; {known}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _unfit(settings: Settings, facts: Facts) -> Iterator[tuple[str, list[str], str, bool]]:
    """The name of a setting, its targets that fit nothing, what is there, and whether none fits.
    Only for models whose layers are called as in their files."""
    config, path = facts.model.config, facts.model.path
    adapter = settings.axolotl.get("adapter")
    unused = adapter is not None and adapter.value not in _ADAPTERS
    if unused or not config or not path.startswith("/") or quantisable.unfit(config):
        return
    given = [(key, settings.axolotl[key]) for key in _TARGETS if key in settings.axolotl]
    modules = modelfiles.modules(Path(path)) if any(s.value for _, s in given) else []
    for key, setting in given if modules else ():
        wanted = [setting.value] if isinstance(setting.value, str) else list(setting.value or ())
        text = isinstance(setting.value, str) and not method.is_name(setting.value)
        regex = text and key == _TARGETS[0]
        missing = [t for t in wanted if t != _ALL and not _fits(t, modules, regex=regex)]
        if missing:
            others = settings.axolotl.get("lora_target_linear")
            alone = key == _TARGETS[0] and not (others is not None and others.value)
            known = _known(missing[0], modules)
            yield setting.name, missing, known, alone and len(missing) == len(wanted)


def _fits(target: str, modules: Sequence[str], *, regex: bool) -> bool:
    """As PEFT tells: a text has to match a whole name, an item of a list its last parts."""
    if not regex:
        ends = (target, f".{target}")
        return target == _OUTPUT or any(m == ends[0] or m.endswith(ends[1]) for m in modules)
    if _ENDLESS.search(target):
        return True  # what may take a pattern for ever is not tried here
    try:
        pattern = re.compile(target)
    except (re.error, OverflowError, RecursionError):
        return False
    return any(pattern.fullmatch(f"{prefix}{m}") for m in modules for prefix in _PREFIXES)


def _known(target: str, modules: Sequence[str]) -> str:
    """The layers that there are."""
    last = list(
        dict.fromkeys(m.rpartition(".")[2] for m in modules if ".layers." in m or ".h." in m)
    )
    names = [name for name in last if "norm" not in name] or last
    hint = nearest(target, names)
    there = f"there are {_listed(names[:12])}" if names else "its layers have other names"
    return there + (f"; did you mean {hint}?" if hint else "")


def _untemplated(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Rows of messages for a tokenizer without a chat template."""
    keys = {key: s.value for key, s in settings.axolotl.items() if s.value}
    chosen = keys.get("chat_template", "tokenizer_default")
    if keys.get("tokenizer_use_mistral_common"):  # which brings its own
        return
    folder = str(keys.get("tokenizer_config") or keys["base_model"])
    if chosen != "tokenizer_default" or "chat_template_jinja" in keys or not os.path.isdir(folder):
        return
    pairs = zip(keys.get("datasets") or (), facts.data, strict=True)
    types = (data_types.is_chat(item, data) for item, data in pairs)
    if any(types) and modelfiles.has_chat_template(Path(folder)) is False:
        what = f"is not set, {folder} has no chat template and rows of messages need one; "
        setting = settings.axolotl.get("chat_template")
        name = setting.name if setting else "AXOLOTL_CHAT_TEMPLATE"
        yield Problem(name, f"{what}e.g. AXOLOTL_CHAT_TEMPLATE=alpaca")


def _held_back(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """More rows to evaluate on than there are."""
    share, given = settings.axolotl.get("val_set_size"), settings.axolotl.get("datasets")
    if share is None or not share.value or given is None or not facts.data:
        return
    wanted = int(share.value) if share.value > 1 else 1
    counts = [count_rows(data, wanted + 1) for data in facts.data]
    if None in counts or not all(data.local and not data.problem for data in facts.data):
        return
    sample = settings.get("SFT_SAMPLE_SIZE")
    total = sum(min(n, sample or n) for n in counts if n is not None)
    if total <= wanted:
        what = f"{share.value:g} holds back {wanted} of {total} rows and leaves none to train"
        yield Problem(share.name, f"{what}; a share is less than 1, e.g. 0.05", Exit.DATA)
