"""What lies in the Hub's cache on this machine, for runs that may not or cannot ask the Hub."""

import os
from collections.abc import Mapping
from pathlib import Path

from envtune import files
from envtune.artifacts import modelfiles
from envtune.errors import Exit, Problem
from envtune.resolve.config import RunConfig
from envtune.settings import paths
from envtune.transfer.answers import Answer
from envtune.transfer.repositories import Repository


def lost(repository: Repository, environ: Mapping[str, str]) -> str:
    """What the cache lacks of a repository, or nothing where a run can do without the Hub."""
    folder = snapshot(repository, environ)
    if folder is None or (repository.kind == "dataset" and not _loaded(repository.id, environ)):
        return "is not in the cache"
    if problems := modelfiles.problems(folder, repository.parts):
        return f"is not whole in the cache ({'; '.join(problems)})"
    return ""


def _told(repository: Repository, environ: Mapping[str, str], warning: str = "") -> Answer:
    """What the files of a cached repository say, of those that are asked for."""
    folder, parts = snapshot(repository, environ), repository.parts
    if folder is None:
        return Answer(warning=warning)
    return Answer(
        warning=warning,
        config=modelfiles.read_json(folder / "config.json") if modelfiles.CONFIG in parts else {},
        tokenizer=modelfiles.tokenizer(lambda name: files.read_bytes(folder / name))
        if modelfiles.TOKENIZER in parts
        else {},
    )


def fetch(repository: Repository) -> str:
    """How to get a repository to where a run without the Hub finds it."""
    revision = f" --revision {repository.revision}" if repository.revision else ""
    command = f"hf download {repository.id}{revision}"
    if repository.kind == "model":
        return command
    # `datasets` takes no download from the cache, only what it has loaded itself.
    folder = repository.id.rpartition("/")[2]
    return f"{command} --repo-type dataset --local-dir {folder}, and give that folder"


def snapshot(repository: Repository, environ: Mapping[str, str]) -> Path | None:
    """The folder of the repository at its revision, whole or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repository.id,
            repo_type=repository.kind,
            revision=repository.revision,
            cache_dir=cache(environ),
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return Path(folder)


def cache(environ: Mapping[str, str]) -> str:
    """The folder of the Hub's cache as the child sees it."""
    return environ.get("HF_HUB_CACHE") or f"{_home(environ)}/hub"


def _loaded(id_: str, environ: Mapping[str, str]) -> bool:
    """Whether `datasets` has a folder of its own for a repository, named in snake case."""
    root = Path(environ.get("HF_DATASETS_CACHE") or f"{_home(environ)}/datasets")
    wanted = _bare(id_.replace("/", ""))
    return any(_bare(path.parts[-4]) == wanted for path in root.glob("*/*/*/*") if path.is_dir())


def _home(environ: Mapping[str, str]) -> str:
    """HF_HOME as the child sees it, which this process may have been started without."""
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.expanduser(environ.get("HF_HOME") or f"{caches}/huggingface")


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


def base_folder(config: RunConfig, environ: Mapping[str, str]) -> Path | None:
    """The folder of the base model: the user's, or the Hub's in its cache."""
    plain = config.plain()
    if (name := str(plain["base_model"])).startswith("/"):
        return Path(name)
    repository = Repository("", "model", name, plain.get("model_revision"))
    caches = paths.caches(config.setting("SFT_CACHE_DIR"), environ)
    return snapshot(repository, {**environ, **caches})


def instead(repo: Repository, why: str, environ: Mapping[str, str]) -> Answer:
    """The cache's answer where the Hub gives none."""
    if lost(repo, environ):
        text = f"{why}; check the network and HF_ENDPOINT, or give local folders"
        return Answer(Problem(repo.name, text, Exit.ACCESS))
    warning = f"{repo.name}: {why}; {repo.id} is taken from the cache"
    return _told(repo, environ, warning)


def answer(repo: Repository, switch: str, environ: Mapping[str, str]) -> Answer:
    """The cache's answer where the Hub may not be asked."""
    if why := lost(repo, environ):
        message = f"{repo.id} {why} and {switch} is set; where there is a network: {fetch(repo)}"
        return Answer(Problem(repo.name, message, Exit.ACCESS))
    return _told(repo, environ)
