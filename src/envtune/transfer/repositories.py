"""Where models, tokenizers and data sets come from: folders, and repositories of the Hub."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from envtune.artifacts.modelfiles import ADAPTER, CONFIG, TOKENIZER, WEIGHTS
from envtune.resolve.config import RunConfig
from envtune.settings.paths import DATASETS, FROM_THE_HUB
from envtune.settings.typed import Settings

# What Axolotl takes for the format of `data_files`, or makes itself, and not for a repository.
_FORMATS = ("json", "csv", "parquet", "arrow", "text")
_SYNTHETIC = "_synthetic"


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub. `kind` is model or dataset; no `revision` is the newest.

    `name` is the variable that asks for it and `revision_name` the one that sets its
    revision, where that is another. `parts` is what has to be in it (see `modelfiles`).
    """

    name: str
    kind: str
    id: str
    revision: str | None = None
    revision_name: str = ""
    parts: tuple[str, ...] = ()


def models(settings: Settings) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The key, the path or id, and the needed parts of each model and tokenizer."""
    return _parted({key: setting.value for key, setting in settings.axolotl.items()})


def _parted(values: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    given = {key: values[key] for key in FROM_THE_HUB if values.get(key)}
    parts = needs(given)
    yield from ((key, value, parts.get(key, ())) for key, value in given.items())


def needs(keys: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What Axolotl takes from where, by the settings that are there: key -> parts."""
    config = "base_model_config" if "base_model_config" in keys else "base_model"
    tokenizer = "tokenizer_config" if "tokenizer_config" in keys else config
    found: dict[str, tuple[str, ...]] = {"processor_config": (), "lora_model_dir": (ADAPTER,)}
    for key, part in ((config, CONFIG), ("base_model", WEIGHTS), (tokenizer, TOKENIZER)):
        found[key] = (*found.get(key, ()), part)
    return found


def repositories(settings: Settings) -> list[Repository]:
    """Every repository that the run reads."""
    return [*_model_repositories(settings), *_data_repositories(settings)]


def of_models(config: RunConfig) -> list[Repository]:
    """The repositories of the models and tokenizers of a run, each once with all its parts."""
    found: dict[tuple[str, str | None], Repository] = {}
    names = {key: value.source for key, value in config.axolotl.items()}
    for repo in _of_models(config.plain(), names):
        first = found.setdefault((repo.id, repo.revision), repo)
        parts = tuple(dict.fromkeys((*first.parts, *repo.parts)))
        found[repo.id, repo.revision] = replace(first, parts=parts)
    return list(found.values())


def _model_repositories(settings: Settings) -> Iterator[Repository]:
    names = {key: setting.name for key, setting in settings.axolotl.items()}
    return _of_models({key: s.value for key, s in settings.axolotl.items()}, names)


def _of_models(values: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Repository]:
    for key, id_, parts in _parted(values):
        if id_.startswith("/"):
            continue
        repo = Repository(names[key], "model", id_, parts=parts)
        # Axolotl takes the newest adapter.
        if key != "lora_model_dir" and (revision := values.get("model_revision")):
            repo = replace(repo, revision=revision, revision_name=names["model_revision"])
        yield repo


def _data_repositories(settings: Settings) -> Iterator[Repository]:
    for key in DATASETS:
        if setting := settings.axolotl.get(key):
            for item in filter(is_repository, setting.value or ()):
                yield Repository(setting.name, "dataset", item["path"], item.get("revision"))


def is_repository(dataset: Mapping[str, Any]) -> bool:
    path = dataset.get("path")
    if not path or path.startswith("/") or "://" in path or dataset.get("type") == _SYNTHETIC:
        return False
    return not (path in _FORMATS and dataset.get("data_files"))
