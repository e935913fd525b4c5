"""Where models, tokenizers and data sets come from: folders, and repositories of the Hub."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from envtune import modelfiles
from envtune.facts import DATASETS, FROM_THE_HUB
from envtune.settings import Settings

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
    given = {k: s.value for k in FROM_THE_HUB if (s := settings.axolotl.get(k)) and s.value}
    parts = modelfiles.needs(given)
    yield from ((key, value, parts.get(key, ())) for key, value in given.items())


def repositories(settings: Settings) -> list[Repository]:
    """Every repository that the run reads."""
    return [*_model_repositories(settings), *_data_repositories(settings)]


def _model_repositories(settings: Settings) -> Iterator[Repository]:
    revision = settings.axolotl.get("model_revision")
    for key, id_, parts in models(settings):
        if id_.startswith("/"):
            continue
        repo = Repository(settings.axolotl[key].name, "model", id_, parts=parts)
        if revision is not None and key != "lora_model_dir":  # Axolotl takes the newest adapter
            repo = replace(repo, revision=revision.value, revision_name=revision.name)
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
