"""Places that a test can publish to: a Hub that may be written to, and servers of stores."""

import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hub_standin import Hub, hub
from tests.hub_writing import Disk

ADA, READER = "hf_AdaAda0123456789", "hf_ReadRead0123456789"


def user(name: str, role: str, **token: Any) -> dict[str, Any]:
    """What the Hub tells of a token, and of who made it."""
    orgs = [{"name": "acme", "roleInOrg": "write"}, {"name": "museum", "roleInOrg": "read"}]
    held = {"accessToken": {"role": role, **token}}
    return {"type": "user", "name": name, "orgs": orgs, "auth": held}


@contextmanager
def writable_hub(folder: Path) -> Iterator[Hub]:
    """A Hub that keeps in a folder what is written to it, for two people."""
    with hub() as made:
        made.users = {ADA: user("ada", "write"), READER: user("rea", "read")}
        made.disk = Disk(folder)
        yield made


def requests(hub: Hub, start: str) -> list[str]:
    return [line for line in hub.seen if line.startswith(start)]


@contextmanager
def server(command: list[str], ready: str) -> Iterator[str]:
    """A real server that says where it listens."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/tmp"
    )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if ready in line), "")
        assert line, f"{command[0]} does not start"
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield line.split()[-1].removeprefix("http://")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def moto() -> Iterator[dict[str, str]]:
    """S3's protocol by moto's server with a bucket: the variables that lead there."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with server(command, "Running on") as host:
        make = urllib.request.Request(f"http://{host}/bucket", method="PUT")
        with urllib.request.urlopen(make):
            pass
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}",
            "AWS_ACCESS_KEY_ID": "ada",
            "AWS_SECRET_ACCESS_KEY": "s3cret-of-ada",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
