"""What the Hub's refusals mean: an error of huggingface_hub in, one line for the user out."""

from typing import Any

from envtune.errors import Exit, Problem
from envtune.transfer.hub import Hub
from envtune.transfer.repositories import Repository

# Of a gated repository: a word of what the Hub says, and what it comes to. The first that
# is found counts.
_GATES = (
    ("awaiting", "the authors have not yet answered the request of {user}; see {page}"),
    ("rejected", "the authors have refused {user}; see {page}"),
    ("fine-grained", "the token of {user} may not read gated repositories; allow it on {tokens}"),
    ("", "the licence is not accepted by {user}; open {page} and accept it"),
)


def busy(error: Any) -> bool:
    """Whether an HfHubHTTPError tells of the Hub's state and nothing of the repository."""
    status = error.response.status_code
    return bool(status == 429 or status >= 500)


def problem(error: Any, hub: Hub, repository: Repository) -> Problem:
    """The line for an HfHubHTTPError about a repository."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, id_, status = repository.name, repository.id, error.response.status_code
    if status == 401 and hub.token:
        return refused_token(hub)
    if isinstance(error, RevisionNotFoundError):
        name = repository.revision_name or name
        message = f"{id_} has no revision {repository.revision!r}; see {hub.page(repository)}"
    elif isinstance(error, GatedRepoError):
        message = f"{id_} is gated and {_gate(error, hub, hub.page(repository))}"
    elif isinstance(error, RepositoryNotFoundError) or status == 401:
        message = f"{id_} is no folder here and not on {hub.shown}, {_or_private(hub)}"
    else:
        why = getattr(error, "server_message", None) or "no reason given"
        message = f"{hub.shown} refuses {id_} with status {status}: {why}"
    return Problem(name, message, Exit.ACCESS)


def refused_token(hub: Hub) -> Problem:
    """The line for a token that the Hub does not take."""
    message = f"the token was refused by {hub.shown}; make a new one on {hub.tokens}"
    return Problem(hub.token_name, message, Exit.ACCESS)


def _gate(error: Any, hub: Hub, page: str) -> str:
    if not hub.token:
        return f"HF_TOKEN is not set; accept the licence on {page} and set a token of {hub.tokens}"
    said = str(error).lower()
    meaning = next(text for word, text in _GATES if word in said)
    return meaning.format(user=hub.user(), page=page, tokens=hub.tokens)


def _or_private(hub: Hub) -> str:
    if not hub.token:
        return "or it is private and HF_TOKEN is not set; check the name, or set HF_TOKEN"
    return f"or it is private and not for {hub.user()}; check the name, or ask its owner"


def may_not_push(target: str, told: dict[str, Any]) -> str:
    """Why the owner of a token may not write to `target`, by what whoami tells; or nothing."""
    user, token = told["name"], told.get("auth", {}).get("accessToken", {})
    roles = {org["name"]: org.get("roleInOrg") for org in told.get("orgs", ())}
    owner = target.partition("/")[0] if "/" in target else user
    if owner != user and owner not in roles:
        return f"{user} is no member of {owner}"
    if roles.get(owner) == "read":
        return f"{user} may only read in {owner}"
    if token.get("role") == "read":
        return f"the token of {user} may only read"
    if token.get("role") == "fineGrained" and not _may_write(token, (owner, target)):
        return f"the token of {user} may not write in {owner}"
    return ""


def _may_write(token: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether a fine-grained token has write permission in one of `names`."""
    return any(
        scope["entity"].get("name") in names and "repo.write" in scope["permissions"]
        for scope in token.get("fineGrained", {}).get("scoped", ())
    )
