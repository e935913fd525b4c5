"""Whether the run may have its models and data sets, told before any GPU time is spent.

A local folder has to be whole. A repository of the Hub has to be readable with the token
that is there, or, where the Hub may not or cannot be asked, to lie whole in its cache.
Every line names the variable that asks for it; no line holds the token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from envtune import deadline
from envtune.artifacts import modelfiles
from envtune.checks.machine import writable
from envtune.errors import Exit, Problem, Refused
from envtune.resolve.config import Facts
from envtune.settings import publish_targets, runtime
from envtune.settings.publish_targets import Target
from envtune.settings.typed import Settings
from envtune.transfer import hubcache, refusals, stores
from envtune.transfer.hub import Hub, offline, reason
from envtune.transfer.repositories import Repository, models, repositories

Ask = Callable[[], "Answer"]
# Seconds for all questions, which are asked at once: each may take two requests of the Hub's.
_PATIENCE = 20.0
# The file that is asked for, by the part that is needed: refused as the whole would be.
_TELLING = {
    modelfiles.CONFIG: "config.json",
    modelfiles.TOKENIZER: "tokenizer_config.json",
    modelfiles.ADAPTER: "adapter_config.json",
}


@dataclass(frozen=True)
class Answer:
    """What came of a question: a problem or a warning, or neither, and a model's config.json."""

    problem: Problem | None = None
    warning: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def local_problems(settings: Settings, facts: Facts) -> list[Problem]:
    """What is missing or damaged in the local folders of models and tokenizers."""
    return [
        Problem(settings.axolotl[key].name, text, Exit.ACCESS)
        for key, path, parts in models(settings)
        if path.startswith("/")
        for text in modelfiles.problems(Path(path), parts)
    ]


def verify(settings: Settings, facts: Facts) -> Facts:
    """`facts` with what is known of a model that is not local, and warnings. Raises Refused.

    Nobody is asked, and nothing heavy imported, where everything is local.
    """
    wanted, places = repositories(settings), publish_targets.wanted(settings)
    pushed = [place for place in places if place.id]
    if not wanted and not places:
        return facts
    environ = {**facts.environ, **runtime.caches(settings.get("SFT_CACHE_DIR"), facts.environ)}
    questions = [_writable(place, environ) for place in places if not place.id]
    given: list[Answer] = []
    if switch := _switch(settings, environ):
        given = [_in_cache(repo, switch, environ) for repo in wanted]
        given += [_refuse(p.name, f"{p.id} needs the Hub and {switch} is set") for p in pushed]
    elif wanted or pushed:
        questions += _of_the_hub(wanted, pushed, environ)
    # As they are asked for: the models first.
    answers = [*given, *deadline.answers(questions, _PATIENCE)]
    if problems := [answer.problem for answer in answers if answer.problem]:
        raise Refused(_merged(problems))
    warnings = tuple(answer.warning for answer in answers if answer.warning)
    config = next((answer.config for answer in answers if answer.config), facts.model.config)
    # A child that need not ask would only wait for a Hub that does not answer.
    alone = bool(warnings) and not any(hubcache.lost(repo, environ) for repo in wanted)
    model = replace(facts.model, config=config)
    return replace(facts, model=model, local=facts.local or alone, warnings=warnings)


def _switch(settings: Settings, environ: Mapping[str, str]) -> str:
    """The variable that forbids to ask the Hub, or nothing. Raises Refused on a contradiction."""
    if not settings.get("SFT_LOCAL_FILES_ONLY"):
        return offline(environ)
    if (given := environ.get("HF_HUB_OFFLINE")) and not offline(environ):
        what = f"is {given!r} and SFT_LOCAL_FILES_ONLY is true; unset one of them"
        raise Refused([Problem("HF_HUB_OFFLINE", what)])
    return "SFT_LOCAL_FILES_ONLY"


def _refuse(name: str, message: str) -> Answer:
    return Answer(Problem(name, message, Exit.ACCESS))


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """One line for what is said of several variables in the same words."""
    names: dict[str, list[str]] = {}
    for problem in problems:
        names.setdefault(problem.message, []).append(problem.name)
    return [
        Problem(", ".join(dict.fromkeys(several)), message, Exit.ACCESS)
        for message, several in names.items()
    ]


def _of_the_hub(
    wanted: Sequence[Repository], pushed: Sequence[Target], environ: Mapping[str, str]
) -> list[tuple[Ask, Ask]]:
    """What the Hub is asked; what it leaves open in time, the cache answers.

    What takes the time of a slow machine is imported here, before the clock starts.
    """
    import httpx  # noqa: F401
    import huggingface_hub.errors
    import huggingface_hub.utils  # noqa: F401

    hub = Hub(environ)
    late = f"{hub.shown} does not answer"
    return [
        *(
            (partial(_ask, hub, repo, environ), partial(_unreached, repo, late, environ))
            for repo in wanted
        ),
        *((partial(_ask_to_push, hub, p), partial(_refuse, p.name, late)) for p in pushed),
    ]


def _writable(place: Target, environ: Mapping[str, str]) -> tuple[Ask, Ask]:
    """Asks a store, whose client is there before the clock starts, whether it may be written to."""
    stores.load(place.url)
    return (
        partial(_ask_to_write, place, environ),
        partial(_refuse, place.name, f"{place.url} does not answer"),
    )


def _ask_to_write(place: Target, environ: Mapping[str, str]) -> Answer:
    if place.url.startswith("file://"):
        return Answer(writable(place.name, place.url.removeprefix("file://")))
    try:
        stores.Objects(place.url, environ).probe()
    except stores.Denied as error:
        return _refuse(place.name, f"{error}; check the address and its credentials")
    except stores.Unreached as error:
        return _refuse(place.name, f"{error}; check the network and the address")
    return Answer()


def _ask(hub: Hub, repo: Repository, environ: Mapping[str, str]) -> Answer:
    """Asks the Hub whether a repository may be read and has what it should have."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return _read(hub, repo)
    except HFValidationError:
        return _refuse(repo.name, f"{repo.id!r} is no local path and no repository's name")
    except HfHubHTTPError as error:
        if not refusals.busy(error):
            return Answer(refusals.problem(error, hub, repo))
        why = f"{hub.shown} answers with status {error.response.status_code}"
    except httpx.HTTPError as error:
        why = f"{hub.shown} cannot be reached ({reason(error)})"
    return _unreached(repo, why, environ)


def _read(hub: Hub, repo: Repository) -> Answer:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    telling = next((_TELLING[part] for part in repo.parts if part in _TELLING), "README.md")
    try:
        content = hub.file(repo, telling)
    except RemoteEntryNotFoundError:  # it may be read, and has no such file
        content = b"{}"
    lost = modelfiles.missing(hub.names(repo), repo.parts) if repo.parts else []
    if lost:
        return _refuse(repo.name, f"{hub.page(repo)} has no {', no '.join(lost)}")
    if telling != "config.json":
        return Answer()
    try:
        return Answer(config=modelfiles.parse(content))
    except ValueError as error:
        return _refuse(repo.name, f"{hub.page(repo)}: its config.json is no JSON: {error}")


def _ask_to_push(hub: Hub, pushed: Target) -> Answer:
    """Whether the token may write to the repository that is pushed to."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not hub.token:
        return _refuse(pushed.name, f"HF_TOKEN is not set; set one of {hub.tokens} that may write")
    try:
        validate_repo_id(pushed.id)
        why = refusals.may_not_push(pushed.id, hub.whoami())
    except HFValidationError as error:
        return _refuse(pushed.name, f"{pushed.id!r} is no repository's name: {error}")
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            return Answer(refusals.refused_token(hub))
        return _refuse(pushed.name, f"{hub.shown} answers with status {error.response.status_code}")
    except httpx.HTTPError as error:
        return _refuse(pushed.name, f"{hub.shown} cannot be reached ({reason(error)})")
    return _refuse(pushed.name, f"{pushed.id}: {why}; see {hub.tokens}") if why else Answer()


def _unreached(repo: Repository, why: str, environ: Mapping[str, str]) -> Answer:
    """The cache's answer where the Hub gives none."""
    if hubcache.lost(repo, environ):
        return _refuse(
            repo.name, f"{why}; check the network and HF_ENDPOINT, or give local folders"
        )
    warning = f"{repo.name}: {why}; {repo.id} is taken from the cache"
    return Answer(warning=warning, config=hubcache.config(repo, environ))


def _in_cache(repo: Repository, switch: str, environ: Mapping[str, str]) -> Answer:
    """The cache's answer where the Hub may not be asked."""
    if lost := hubcache.lost(repo, environ):
        fetch = hubcache.fetch(repo)
        message = f"{repo.id} {lost} and {switch} is set; where there is a network: {fetch}"
        return _refuse(repo.name, message)
    return Answer(config=hubcache.config(repo, environ))
