"""What of a run vLLM is to serve: read from what its stages left on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envtune.artifacts import adapterfiles, modelfiles, servability
from envtune.errors import Exit, Problem, Refused
from envtune.resolve.config import RunConfig
from envtune.runs.contents import MERGED, SERVING
from envtune.settings.own import SERVE_FLAGS
from envtune.settings.own.stages import QUANTISED
from envtune.supervise.stage import Context
from envtune.transfer import hubcache

_PARTS = (modelfiles.CONFIG, modelfiles.WEIGHTS, modelfiles.TOKENIZER)
_LORA = "SFT_SERVE_LORA_MODULES"


def planned(config: RunConfig, folder: Path) -> tuple[str, Path]:
    """What a run that may not be trained yet will be served from: the source and the folder.

    An adapter that vLLM refuses is merged, which only the export can tell.
    """
    if path := config.setting("SFT_SERVED_MODEL_RELPATH"):
        return "override", folder.parent / path
    if (scheme := config.setting("SFT_QUANTISE")) and config.setting("SFT_PREFER_AWQ"):
        return QUANTISED[scheme].removeprefix("merged_"), folder / QUANTISED[scheme]
    if not config.plain().get("adapter"):
        return "model", folder / "model"
    adapter = folder / SERVING / "adapter"
    exported = (folder / MERGED / "config.json").exists() and not adapter.is_dir()
    merged = config.setting("SFT_MERGE") or exported
    return ("merged", folder / MERGED) if merged else ("adapter", adapter)


@dataclass(frozen=True)
class Served:
    """A whole model and the adapters on it.

    `names` are those of the whole model. `source` is adapter, model, merged, override, or
    the folder of a quantised model. `config` is the whole model's config.json.
    """

    model: Path
    names: tuple[str, ...]
    source: str
    config: Mapping[str, Any]
    adapters: Mapping[str, Path] = field(default_factory=dict)
    rank: int = 0
    tokenizer: Path | None = None
    chat_template: Path | None = None
    generation_config: Path | None = None

    @property
    def quantised(self) -> bool:
        return bool(self.config.get("quantization_config"))

    @property
    def tuned(self) -> str:
        """The name under which what was trained answers."""
        return next(iter(self.adapters), self.names[0])


def find(context: Context, *, as_trained: bool = False) -> Served:
    """What the settings choose of a trained run, or with `as_trained` what it has itself, not
    quantised. Raises Refused with all that is wrong."""
    flags = context.config.setting(SERVE_FLAGS) or {}
    names = tuple(flags.get("served_model_name") or (context.run.name,))
    found = _found(context, names, as_trained=as_trained)
    told = modelfiles.problems(found.model, _PARTS[:2] if found.tokenizer else _PARTS)
    for folder in set(found.adapters.values()):
        told += adapterfiles.problems(folder)
    if told:
        raise Refused(Problem("serve", text, Exit.ARTIFACT) for text in told)
    return _with_more(found, flags.get("lora_modules") or ())


def _found(context: Context, names: tuple[str, ...], *, as_trained: bool) -> Served:
    folder, setting = context.run.folder, context.config.setting
    quantised = setting("SFT_PREFER_AWQ") and not as_trained
    if not as_trained and (path := setting("SFT_SERVED_MODEL_RELPATH")):
        return _whole(folder.parent / path, names, "override")
    if quantised and (smaller := sorted(folder.glob(f"{MERGED}_*/config.json"))):
        return _whole(smaller[0].parent, names, smaller[0].parent.name)
    adapter = (folder / SERVING / "adapter").is_dir() and not setting("SFT_MERGE")
    for name in () if adapter else ("model", MERGED):
        if (folder / name / "config.json").exists():
            return _whole(folder / name, names, name)
    if not adapter:
        raise Refused([Problem("serve", _nothing(folder), Exit.ARTIFACT)])
    return _on_base(context, names)


def _nothing(folder: Path) -> str:
    if (folder / "adapter").is_dir():
        return f"{folder} holds an adapter that was not exported; `envtune export` does it"
    return f"{folder} holds nothing that was trained to its end"


def _whole(folder: Path, names: tuple[str, ...], source: str) -> Served:
    config = folder / "config.json"
    if not config.exists():
        name = "SFT_SERVED_MODEL_RELPATH" if source == "override" else "serve"
        raise Refused([Problem(name, f"{folder} holds no model", Exit.ARTIFACT)])
    return Served(folder, names, source, modelfiles.read_json(config))


def _on_base(context: Context, names: tuple[str, ...]) -> Served:
    """The exported adapter, on the base that it was trained on or the one made for it."""
    folder = context.run.folder / SERVING
    made = modelfiles.read_json(folder / "serving.json")
    trained_on = hubcache.base_folder(context.config, context.environ)
    base = folder / made["model"] if made["model"] else trained_on
    name = str(context.config.plain()["base_model"])
    if base is None or not (base / "config.json").exists():
        raise Refused([Problem("serve", f"the base {name} is not there any more", Exit.ACCESS)])
    called = Path(name).name if name.startswith("/") else name
    if called in names:
        text = f"{called} is the base's own name; choose another for the adapter"
        raise Refused([Problem("SFT_SERVE_SERVED_MODEL_NAME", text)])
    return Served(
        model=base,
        names=(called,),
        source="adapter",
        config=modelfiles.read_json(base / "config.json"),
        adapters=dict.fromkeys(names, folder / made["adapter"]),
        rank=made["max_lora_rank"],
        tokenizer=folder / made["tokenizer"] if made["tokenizer"] else None,
        chat_template=folder / made["chat_template"] if made["chat_template"] else None,
        generation_config=folder if made.get("generation_config") else None,
    )


def _with_more(found: Served, modules: tuple[str, ...]) -> Served:
    """With the user's other adapters, each proved to fit, or all that is wrong with them."""
    problems: list[str] = []
    adapters, rank = dict(found.adapters), found.rank
    for module in modules:
        name, _, path = module.partition("=")
        if not name or not path or name in (*adapters, *found.names):
            problems.append(f"{module!r} is not name=/folder with a name of its own")
            continue
        try:
            rank = max(rank, _rank(Path(path), found.model))
        except Refused as refused:
            problems += [f"{name}: {problem.message}" for problem in refused.problems]
        adapters[name] = Path(path)
    if problems:
        raise Refused(Problem(_LORA, text, Exit.ARTIFACT) for text in problems)
    return Served(**{**vars(found), "adapters": adapters, "rank": rank})


def _rank(adapter: Path, base: Path) -> int:
    """The rank that vLLM is given for an adapter. Raises Refused where vLLM would refuse it, or
    answer otherwise than it was trained."""
    decision = servability.decide(*adapterfiles.pair(adapter, base))
    if decision.kind != "plain" or decision.max_lora_rank is None:
        text = f"vLLM does not serve it as it is: {decision.reason}"
        raise Refused([Problem("adapter", text, Exit.ARTIFACT)])
    return decision.max_lora_rank
