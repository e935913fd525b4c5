"""A stand-in for RunPod's API, which no test can reach, behind RUNPOD_API_BASE_URL on loopback.

It answers the queries and mutations about one pod that RunPod's GraphQL schema documents:
`pod`, `podStop` and `podTerminate`, by a key in the Authorization header. Errors come with
status 200, as GraphQL has them; a wrong key is a 401, a client without a name a 403.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.harness import Quiet, serving

POD, KEY = "x3dz0p7od5", "rpa_0123456789ABCDEF"
_OPERATION = re.compile(r"\{\s*(podStop|podTerminate|pod)\(input: \{podId: \$(\w+)\}\)")


@dataclass
class RunPod:
    """The pod, what was asked, and the trouble to make.

    `faults` are met in order, one a request: a status, errors (of GraphQL), JSON of another
    kind, an answer that is cut, or nothing; `deaf` is how many mutations are accepted and change
    nothing.
    """

    url: str = ""
    status: str = "RUNNING"
    price: float | str | None = 0.69
    faults: list[str] = field(default_factory=list)
    deaf: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a container in the pod."""
        return {
            "RUNPOD_POD_ID": POD,
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_API_BASE_URL": self.url,
        }


class _Handler(Quiet):
    runpod: RunPod

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation, variable = _OPERATION.findall(body["query"])[0]
        self.runpod.asked.append(operation)
        fault = self.runpod.faults.pop(0) if self.runpod.faults else ""
        if fault == "errors":
            self._json({"errors": [{"message": "not authorized"}], "data": None})
        elif fault.startswith(("[", "{")):
            self._json(json.loads(fault))
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "99")
            self.end_headers()
            self.wfile.write(b'{"data"')
        elif fault:
            self._json({}, int(fault))
        elif self.headers["User-Agent"].startswith("Python"):
            self._json({"error_code": 1010}, 403)
        elif self.headers.get("Authorization") != f"Bearer {KEY}" or self.path != "/graphql":
            self._json({}, 401)
        elif body["variables"][variable] != POD:
            self._json({"errors": [{"message": "pod not found"}], "data": None})
        else:
            self._json({"data": {operation: self._answer(operation)}})

    def _answer(self, operation: str) -> dict[str, Any] | None:
        runpod = self.runpod
        if operation != "pod" and runpod.deaf:
            runpod.deaf -= 1
        elif operation == "podStop":
            runpod.status = "EXITED"
        elif operation == "podTerminate":
            runpod.status = "TERMINATED"
        if runpod.status == "TERMINATED":
            return None
        told = {"id": POD, "desiredStatus": runpod.status}
        return {**told, "costPerHr": runpod.price} if operation == "pod" else told

    def _json(self, told: Any, status: int = 200) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 302:
            self.send_header("Location", f"{self.runpod.url}/elsewhere")
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running(**given: Any) -> Iterator[RunPod]:
    """A RunPod with one pod while the block runs."""
    made = RunPod(**given)
    with serving(type("Handler", (_Handler,), {"runpod": made})) as made.url:
        yield made
