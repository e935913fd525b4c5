"""The pod that this container is, asked and ended through RunPod's GraphQL API.

That API is the one for which RunPod puts a key into every pod, good for that pod alone;
`runpodctl` uses it inside a pod too. The key goes into a header and to no other host.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envtune.sources import Secret

_API = "https://api.runpod.io"
CONSOLE = "https://console.runpod.io/pods"
RUNNING = "RUNNING"
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
        told = self._ask(_STATE)["pod"]
        if told is None:
            return None
        return State(told["desiredStatus"], float(told["costPerHr"] or 0.0))

    def stop(self) -> None:
        """Asks for its stop. Its volume stays, and is paid for."""
        self._ask(_STOP)

    def terminate(self) -> None:
        """Asks for its removal, with its volume unless that is a network volume."""
        self._ask(_TERMINATE)

    def runs(self) -> bool:
        """Whether it is still meant to run, and to be paid for."""
        state = self.state()
        return state is not None and state.status == RUNNING

    def _ask(self, query: str) -> dict[str, Any]:
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
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Unreached(f"{self.url} cannot be asked ({reason})") from error
        if errors := told.get("errors"):
            raise Refusal(f"{self.url} refuses: {errors[0]['message']}")
        data: dict[str, Any] = told["data"]
        return data


def _open(request: Any) -> Any:
    """Sends a request by the proxy of the environment, if any."""
    import urllib.request

    class Straight(urllib.request.HTTPRedirectHandler):
        """A redirect would take the key along."""

        def redirect_request(self, *arguments: object) -> None:
            return None

    return urllib.request.build_opener(Straight).open(request, timeout=_PATIENCE)


def this(environ: Mapping[str, str]) -> Pod | None:
    """The pod that this container is, where RunPod's variables tell."""
    id_, key = environ.get("RUNPOD_POD_ID"), environ.get("RUNPOD_API_KEY")
    if not id_ or not key:
        return None
    base = environ.get("RUNPOD_API_BASE_URL") or _API
    plain = key.reveal() if isinstance(key, Secret) else key
    return Pod(id_, plain.strip(), f"{base.rstrip('/')}/graphql")
