"""The Hub as the engines ask it, and the logins.

A login never stops a run; whether the run may have what it needs is for `access` to tell.
The keys stay in the environment; nothing is written to disk or put on a command line.
"""

import time
from collections.abc import Mapping
from typing import Any

from envtune.artifacts import modelfiles
from envtune.errors import Exit, Problem, Refused
from envtune.failures.table import recognise
from envtune.redaction import HUB_TOKENS, redact, secrets, without_user
from envtune.transfer.repositories import Repository

_HUB = "https://huggingface.co"
_WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
# Seconds that one request may take, and the pause before its only repetition.
_PATIENCE, _PAUSE = 5.0, 0.5
# What a token is called that lies where `hf auth login` puts it.
STORED = "hf auth login"
_ON = ("1", "true", "yes", "on")


def token(environ: Mapping[str, str]) -> str | None:
    """The Hub's token, under its name or one of the two old ones."""
    given = (environ.get(name, "").strip() for name in HUB_TOKENS)  # a plain text again
    return next(filter(None, given), None)


def offline(environ: Mapping[str, str]) -> str:
    """The Hub's own switch that forbids to ask it, or nothing."""
    # The first that is set counts, also when it says no.
    name = next((n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environ.get(n)), "")
    return name if environ.get(name, "").lower() in _ON else ""


def address(environ: Mapping[str, str]) -> str:
    """Where the Hub is asked."""
    return (environ.get("HF_ENDPOINT") or _HUB).rstrip("/")


def closed(environ: Mapping[str, str], *, local_only: bool) -> str:
    """The variable that forbids to ask the Hub, or nothing. Raises Refused on a contradiction."""
    if not local_only:
        return offline(environ)
    if (given := environ.get("HF_HUB_OFFLINE")) and not offline(environ):
        what = f"is {given!r} and SFT_LOCAL_FILES_ONLY is true; unset one of them"
        raise Refused([Problem("HF_HUB_OFFLINE", what)])
    return "SFT_LOCAL_FILES_ONLY"


def reason(error: Exception) -> str:
    """Why a request got no answer, in a few words."""
    if (failure := recognise(str(error))) and failure.exit == Exit.CONFIG:
        return f"{failure.cause}; {failure.fix}"
    return type(error).__name__


class Hub:
    """The Hub behind HF_ENDPOINT, asked with the token of the environment.

    Every method raises HfHubHTTPError where the Hub refuses and httpx.HTTPError where it
    cannot be asked. What takes the time of a slow machine is imported when it is made, before
    the clock of any question starts.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        import httpx  # noqa: F401
        import huggingface_hub.errors
        import huggingface_hub.utils  # noqa: F401
        from huggingface_hub import get_token

        self.url = address(environ)
        self.token = token(environ) or get_token()  # the child takes a stored one too
        given = (name for name in HUB_TOKENS if environ.get(name, "").strip())
        self.token_name = next(given, STORED)

    @property
    def shown(self) -> str:
        """The address as people may see it."""
        return without_user(self.url)

    @property
    def tokens(self) -> str:
        """Where people make tokens."""
        return f"{self.shown}/settings/tokens"

    def page(self, repository: Repository) -> str:
        """Where people look at a repository."""
        folder = "datasets/" if repository.kind == "dataset" else ""
        return f"{self.shown}/{folder}{repository.id}"

    def file(self, repository: Repository, name: str) -> bytes:
        """A small file. What is asked for like this is refused as a download would be."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(
            repository.id,
            name,
            repo_type=repository.kind,
            revision=repository.revision,
            endpoint=self.url,
        )
        return bytes(self._get(url).content)

    def names(self, repository: Repository) -> set[str]:
        """The files of a model at its revision, without those in folders."""
        from urllib.parse import quote

        revision = quote(repository.revision or "main", safe="")
        told = self._json(f"/api/models/{repository.id}/revision/{revision}")
        names = (file["rfilename"] for file in told["siblings"])
        return {name for name in names if "/" not in name}

    def whoami(self) -> dict[str, Any]:
        """Who the token belongs to and what it may do."""
        return self._json("/api/whoami-v2")

    def user(self) -> str:
        """The token's owner, as far as the Hub tells."""
        import httpx

        try:
            return str(self.whoami()["name"])
        except httpx.HTTPError:
            return "the token's owner"

    def _json(self, path: str) -> dict[str, Any]:
        import httpx

        try:
            return modelfiles.parse(self._get(self.url + path).content)
        except ValueError as error:
            raise httpx.DecodingError(str(error)) from error

    def _get(self, url: str) -> Any:
        """One request, repeated once where nothing or a broken server answers."""
        import httpx
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        headers = build_hf_headers(token=self.token)
        for last in (False, True):
            try:
                response = get_session().get(url, headers=headers, timeout=_PATIENCE)
            except httpx.InvalidURL as error:
                raise httpx.UnsupportedProtocol(str(error)) from error
            except httpx.TransportError:
                if last:
                    raise
            else:
                if last or response.status_code < 500:
                    hf_raise_for_status(response)
                    return response
            time.sleep(_PAUSE)
        raise AssertionError("the last try returns or raises")


def hugging_face(environ: Mapping[str, str]) -> str:
    """Asks the Hub who the token belongs to."""
    secret = token(environ)
    if secret is None:
        return "Hugging Face: no token (HF_TOKEN is not set); only public files can be fetched"
    local_only = "SFT_LOCAL_FILES_ONLY"
    switch = local_only if environ.get(local_only, "").lower() in _ON else offline(environ)
    if switch:
        return f"Hugging Face: offline ({switch} is set); the token was not tried"
    return redact(f"Hugging Face: {_login(Hub(environ))}", secrets(environ))


def _login(hub: Hub) -> str:
    user, trouble = _owner(hub)
    return f"logged in as {user}" if trouble is None else _going_on(trouble)


def _going_on(trouble: Problem) -> str:
    return trouble.message if trouble.exit == Exit.ACCESS else f"{trouble.message}; going on"


def token_trouble(environ: Mapping[str, str]) -> Problem | None:
    """What the Hub says against an environment's token, with exit 4, or why it says nothing."""
    return _owner(Hub(environ))[1]


def _owner(hub: Hub) -> tuple[str, Problem | None]:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return str(hub.whoami()["name"]), None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            what = f"the token was refused by {hub.shown} (status {status}); make a new one at "
            return "", Problem(hub.token_name, what + hub.tokens, Exit.ACCESS)
        what = f"{hub.shown} answered with status {status}"
    except httpx.HTTPError as error:
        what = f"no network: {hub.shown} cannot be reached ({reason(error)})"
    return "", Problem(hub.token_name, what, Exit.NETWORK)


def weights_and_biases(environ: Mapping[str, str]) -> str:
    """What will happen to tracking. The run itself logs in, by the key in its environment."""
    mode = environ.get("WANDB_MODE", "").lower()
    if mode and mode not in _WANDB_MODES:
        return f"W&B: WANDB_MODE={mode} is none of {', '.join(_WANDB_MODES)}; W&B will refuse it"
    if mode == "disabled":
        return "W&B: off (WANDB_MODE=disabled)"
    if mode in ("offline", "dryrun"):
        return "W&B: offline (WANDB_MODE); `wandb sync` uploads later"
    if not environ.get("WANDB_API_KEY"):
        return "W&B: off (WANDB_API_KEY is not set)"
    return "W&B: on, with the key of WANDB_API_KEY"
