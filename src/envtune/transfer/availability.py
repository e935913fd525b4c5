"""Whether repositories may be read and written to: the Hub's answers, or its cache's instead.

All questions are asked at once and given up together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from envtune.artifacts import modelfiles
from envtune.settings.publish_targets import Target
from envtune.transfer import deadline, hubcache, refusals, stores
from envtune.transfer.answers import Answer, Question, refuse
from envtune.transfer.hub import Hub, closed, reason
from envtune.transfer.repositories import Repository

# Seconds for all questions: each may take two requests of the Hub's.
_PATIENCE = 20.0
# The file that is asked for, by the part that is needed: refused as the whole would be.
_TELLING = {
    modelfiles.CONFIG: "config.json",
    modelfiles.TOKENIZER: "tokenizer_config.json",
    modelfiles.ADAPTER: "adapter_config.json",
}


@dataclass(frozen=True)
class Known:
    """Every answer. `alone`: the Hub did not answer, and the cache holds all that is wanted."""

    answers: Sequence[Answer]
    alone: bool


def ask(
    wanted: Sequence[Repository],
    places: Sequence[Target],
    environ: Mapping[str, str],
    *,
    local_only: bool,
) -> Known:
    """What is known of repositories that are `wanted`, and of places that are published to.

    Where the Hub may not be asked, its cache answers. Raises Refused on a contradiction.
    """
    stored = [stores.question(place, environ) for place in places if not place.id]
    pushed = [place for place in places if place.id]
    if not (switch := closed(environ, local_only=local_only)):
        hub = Hub(environ) if wanted or pushed else None
        questions = [*stored, *(_of_the_hub(hub, wanted, pushed, environ) if hub else ())]
        answers = deadline.answers(questions, _PATIENCE)
        warned = any(answer.warning for answer in answers)
        # A child that need not ask would only wait for a Hub that does not answer.
        alone = warned and not any(hubcache.lost(repo, environ) for repo in wanted)
        return Known(answers, alone)
    given = [hubcache.answer(repo, switch, environ) for repo in wanted]
    given += [refuse(p.name, f"{p.id} needs the Hub and {switch} is set") for p in pushed]
    return Known([*given, *deadline.answers(stored, _PATIENCE)], alone=False)


def _of_the_hub(
    hub: Hub, wanted: Sequence[Repository], pushed: Sequence[Target], environ: Mapping[str, str]
) -> list[Question]:
    """What the Hub is asked; what it leaves open in time, the cache answers."""
    late = f"{hub.shown} does not answer"
    return [
        *(
            (partial(_ask, hub, repo, environ), partial(hubcache.instead, repo, late, environ))
            for repo in wanted
        ),
        *((partial(_ask_to_push, hub, p), partial(refuse, p.name, late)) for p in pushed),
    ]


def _ask(hub: Hub, repo: Repository, environ: Mapping[str, str]) -> Answer:
    """Asks the Hub whether a repository may be read and has what it should have."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return _read(hub, repo)
    except HFValidationError:
        return refuse(repo.name, f"{repo.id!r} is no local path and no repository's name")
    except HfHubHTTPError as error:
        if not refusals.busy(error):
            return Answer(refusals.problem(error, hub, repo))
        why = f"{hub.shown} answers with status {error.response.status_code}"
    except httpx.HTTPError as error:
        why = f"{hub.shown} cannot be reached ({reason(error)})"
    return hubcache.instead(repo, why, environ)


def _read(hub: Hub, repo: Repository) -> Answer:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    telling = next((_TELLING[part] for part in repo.parts if part in _TELLING), "README.md")
    try:
        content = hub.file(repo, telling)
    except RemoteEntryNotFoundError:  # it may be read, and has no such file
        content = b"{}"
    lost = modelfiles.missing(hub.names(repo), repo.parts) if repo.parts else []
    if lost:
        return refuse(repo.name, f"{hub.page(repo)} has no {', no '.join(lost)}")
    tokenizer = _tokenizer(hub, repo) if modelfiles.TOKENIZER in repo.parts else {}
    if telling != "config.json":
        return Answer(tokenizer=tokenizer)
    try:
        return Answer(config=modelfiles.parse(content), tokenizer=tokenizer)
    except ValueError as error:
        return refuse(repo.name, f"{hub.page(repo)}: its config.json is no JSON: {error}")


def _tokenizer(hub: Hub, repo: Repository) -> Mapping[str, Any]:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    def read(name: str) -> bytes:
        try:
            return hub.file(repo, name)
        except RemoteEntryNotFoundError:
            raise FileNotFoundError(name) from None

    return modelfiles.tokenizer(read)


def _ask_to_push(hub: Hub, pushed: Target) -> Answer:
    """Whether the token may write to the repository that is pushed to."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not hub.token:
        return refuse(pushed.name, f"HF_TOKEN is not set; set one of {hub.tokens} that may write")
    try:
        validate_repo_id(pushed.id)
        why = refusals.may_not_push(pushed.id, hub.whoami())
    except HFValidationError as error:
        return refuse(pushed.name, f"{pushed.id!r} is no repository's name: {error}")
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            return Answer(refusals.refused_token(hub))
        return refuse(pushed.name, f"{hub.shown} answers with status {error.response.status_code}")
    except httpx.HTTPError as error:
        return refuse(pushed.name, f"{hub.shown} cannot be reached ({reason(error)})")
    return refuse(pushed.name, f"{pushed.id}: {why}; see {hub.tokens}") if why else Answer()
