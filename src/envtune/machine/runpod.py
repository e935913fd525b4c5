"""The pod that this container is, asked and ended through RunPod's GraphQL API.

That API is the one for which RunPod puts a key into every pod, good for that pod alone;
`runpodctl` uses it inside a pod too. The key goes into a header and to no other host.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from envtune.redaction import Secret

_API = "https://api.runpod.io"
CONSOLE = "https://console.runpod.io/pods"
RUNNING = "RUNNING"
# Where RunPod mounts a pod's volume unless told otherwise.
VOLUME = "/workspace"
# Seconds that one request may take.
_PATIENCE = 15.0
_STATE = "query ($id: String!) { pod(input: {podId: $id}) { id desiredStatus costPerHr } }"
_STOP = "mutation ($id: String!) { podStop(input: {podId: $id}) { id desiredStatus } }"
_TERMINATE = "mutation ($id: String!) { podTerminate(input: {podId: $id}) }"
# RunPod's front refuses Python's own name.
_AGENT = "envtune"


class Denied(Exception):
    """RunPod does not take the key."""


class Refusal(Exception):
    """RunPod takes the key and refuses this question: a pod's own key may do little."""


class Unreached(Exception):
    """RunPod could not be asked, or could not do it now."""


TROUBLE = (Denied, Refusal, Unreached)


_T = TypeVar("_T")


@dataclass(frozen=True)
class State:
    """What RunPod says of a pod: its status and its price in dollars an hour."""

    status: str
    price: float


@dataclass(frozen=True)
class Pod:
    """A pod and the key that may end it. Every method raises what stands in TROUBLE."""

    id: str
    key: str
    url: str = f"{_API}/graphql"

    def state(self) -> State | None:
        """What it is now; None where there is no such pod any more."""
        return self._ask(_STATE, lambda data: _state(data["pod"]))

    def stop(self) -> None:
        """Asks for its stop. Its volume stays, and is paid for."""
        self._ask(_STOP, lambda data: None)

    def terminate(self) -> None:
        """Asks for its removal, with its volume unless that is a network volume."""
        self._ask(_TERMINATE, lambda data: None)

    def runs(self) -> bool:
        """Whether it is still meant to run, and to be paid for."""
        return self._ask(_STATE, lambda data: _status(data["pod"]) == RUNNING)

    def _ask(self, query: str, read: Callable[[dict[str, Any]], _T]) -> _T:
        import http.client
        import urllib.error
        import urllib.request

        body = json.dumps({"query": query, "variables": {"id": self.id}}).encode()
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "User-Agent": _AGENT,
        }
        request = urllib.request.Request(self.url, body, headers)
        try:
            with _open(request) as response:
                told = json.loads(response.read())
        except urllib.error.HTTPError as error:
            kind = Denied if error.code in (401, 403) else Unreached
            raise kind(f"{self.url} answers with status {error.code}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unreached(f"{self.url} cannot be asked ({reason})") from error
        try:
            if errors := told.get("errors"):
                raise Refusal(f"{self.url} refuses: {errors[0]['message']}")
            return read(told["data"])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise Unreached(f"{self.url} answers something else ({error!r})") from error


def _state(told: dict[str, Any] | None) -> State | None:
    status = _status(told)
    return State(status, float(told["costPerHr"] or 0.0)) if told and status else None


def _status(told: dict[str, Any] | None) -> str | None:
    return None if told is None else str(told["desiredStatus"])


def _open(request: Any) -> Any:
    """Sends a request by the proxy of the environment, if any."""
    import urllib.request

    class Straight(urllib.request.HTTPRedirectHandler):
        """A redirect would take the key along."""

        def redirect_request(self, *arguments: object) -> None:
            return None

    return urllib.request.build_opener(Straight).open(request, timeout=_PATIENCE)


def id_of(environ: Mapping[str, str]) -> str | None:
    """The id of the pod that this container is, or None where it is none of RunPod's."""
    return environ.get("RUNPOD_POD_ID") or None


def this(environ: Mapping[str, str]) -> Pod | None:
    """The pod that this container is, where RunPod's variables tell."""
    id_, key = id_of(environ), environ.get("RUNPOD_API_KEY")
    if not id_ or not key:
        return None
    base = environ.get("RUNPOD_API_BASE_URL") or _API
    plain = key.reveal() if isinstance(key, Secret) else key
    return Pod(id_, plain.strip(), f"{base.rstrip('/')}/graphql")
