"""The files of rows in a data set's repository on the Hub, fetched into its cache.

Files of rows alone are fetched. Which are of the split that is asked for is told by their names, as
the Hub's own viewer tells it: `train-00000-of-00002.parquet`, `data/train.jsonl`, `train/0.csv`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from envtune.data import sets
from envtune.data.batches import BadRow
from envtune.errors import Exit, Problem, Refused
from envtune.settings import paths
from envtune.transfer import hubcache, refusals
from envtune.transfer.hub import Hub, closed, reason
from envtune.transfer.repositories import Repository

_ROWS = tuple(
    f"{kind}{packed}"
    for kind in (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
    for packed in ("", ".gz", ".zst")
)
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# A repository's own descriptions, which are JSON too.
_DESCRIBES = ("dataset_infos.json", "dataset_info.json", "state.json", "config.json")


def here(item: Mapping[str, Any], name: str) -> list[str] | None:
    """The files of a data set that lies on this machine, else None. Raises Refused."""
    try:
        return sets.files_of(item)
    except BadRow as bad:
        raise Refused([Problem(name, str(bad), Exit.DATA)]) from None
    except OSError as error:
        raise Refused([Problem(name, f"{item['path']}: {error.strerror}", Exit.DATA)]) from None


def of_hub(
    item: Mapping[str, Any], name: str, setting: Callable[[str], Any], environ: Mapping[str, str]
) -> list[str]:
    """The files of a data set's split that the Hub holds, fetched. Raises Refused."""
    repository = Repository(name, "dataset", str(item["path"]), item.get("revision"))
    split = str(item.get("split") or "train").partition("[")[0]
    where = {**environ, **paths.caches(setting("SFT_CACHE_DIR"), environ)}
    local_only = bool(setting("SFT_LOCAL_FILES_ONLY"))
    found = fetched(repository, split, item.get("name") or "", where, local_only=local_only)
    return [str(path) for path in found]


def fetched(
    repository: Repository, split: str, subset: str, environ: Mapping[str, str], *, local_only: bool
) -> list[Path]:
    """The files of one split, in the order of their names. Raises Refused.

    Where the Hub may not be asked they are those that its cache has.
    """
    folder = _folder(repository, environ, local_only=local_only)
    there = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = of_split(there, split, subset)
    if not names:
        of = f"{split} of {subset}" if subset else split
        what = f"{repository.id} has no file of rows for {of}; give a local file, or another split"
        raise Refused([Problem(repository.name, what, Exit.DATA)])
    return [folder / name for name in names]


def of_split(names: Iterable[str], split: str, subset: str = "") -> list[str]:
    """The names that hold rows of a split. A repository whose names tell no split is all train."""
    rows = sorted(n for n in names if n.lower().endswith(_ROWS) and _name(n) not in _DESCRIBES)
    rows = [name for name in rows if subset in PurePosixPath(name).parts[:-1]] if subset else rows
    if found := [name for name in rows if _is_of(name, _SPLITS.get(split, (split,)))]:
        return found
    others = [word for words in _SPLITS.values() for word in words]
    return [n for n in rows if not _is_of(n, others)] if split == "train" else []


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _is_of(name: str, words: Sequence[str]) -> bool:
    """Whether a part of a path, or a word of it, is one of the words."""
    return bool(
        re.search(rf"(^|[/._ -])({'|'.join(map(re.escape, words))})([/._ -]|$)", name.lower())
    )


def _folder(repository: Repository, environ: Mapping[str, str], *, local_only: bool) -> Path:
    import httpx
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    if switch := closed(environ, local_only=local_only):
        if found := hubcache.snapshot(repository, environ):
            return found
        what = f"{repository.id} is not in the cache and {switch} is set"
        raise Refused([Problem(repository.name, f"{what}; give a local file", Exit.ACCESS)])
    hub = Hub(environ)
    try:
        return _downloaded(hub, repository, environ)
    except HFValidationError:
        what = f"{repository.id!r} is no local path and no repository's name"
        raise Refused([Problem(repository.name, what, Exit.ACCESS)]) from None
    except HfHubHTTPError as error:
        if not refusals.busy(error):
            raise Refused([refusals.problem(error, hub, repository)]) from None
        why = f"{hub.shown} answers with status {error.response.status_code}"
    except (httpx.HTTPError, LocalEntryNotFoundError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        why = f"{hub.shown} cannot be reached ({reason(cause)})"
    raise Refused([Problem(repository.name, f"{repository.id}: {why}", Exit.NETWORK)])


def _downloaded(hub: Hub, repository: Repository, environ: Mapping[str, str]) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        repository.id,
        repo_type=repository.kind,
        revision=repository.revision,
        cache_dir=hubcache.cache(environ),
        endpoint=hub.url,
        token=hub.token,
        allow_patterns=[f"*{kind}" for kind in _ROWS],
    )
    return Path(folder)
