"""A secret in every input, and a search of every output: nothing, in any disguise."""

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.harness import Entrypoint, Result, Start, clean_environ, envtune

SECRET_KEYS = ("hub_token", "wandb_api_key", "comet_api_key")


def plant() -> str:
    """A value that means something else in a URL, in JSON and in a shell."""
    return f"Pl4nt/{secrets.token_hex(12)}+\"x'&="


def disguises(value: str) -> set[bytes]:
    """The value as it is, in JSON, in a URL, reversed, and inside any base64."""
    raw = value.encode()
    texts = {value, json.dumps(value)[1:-1], quote(value), quote(value, safe=""), value[::-1]}
    # Its middle, which no escape changes, stands in for every other way to quote it.
    found = {text.encode() for text in texts} | {raw[6:30], raw[6:30][::-1]}
    for before in range(3):  # base64 of a text looks different at each of three places
        encoded = base64.b64encode(b"\0" * before + raw)
        start, end = -(-before * 4 // 3) + (before > 0), (before + len(raw)) // 3 * 4
        found.add(encoded[start:end])
        found.add(base64.urlsafe_b64encode(b"\0" * before + raw)[start:end])
    return found


def test_a_disguise_is_seen_through() -> None:
    value = plant()
    for around in range(7):
        text = b"a" * around + value.encode() + b"b" * around
        assert any(found in base64.b64encode(text) for found in disguises(value))
    assert any(found in json.dumps({"a": value}).encode() for found in disguises(value))
    assert any(found in quote(value).encode() for found in disguises(value))


def leaks(planted: dict[str, str], outputs: dict[str, bytes]) -> list[str]:
    return [
        f"{name} is in {where}"
        for name, value in planted.items()
        for where, content in outputs.items()
        if any(found in content for found in disguises(value))
    ]


def left(folder: Path, result: Result, inputs: Path) -> dict[str, bytes]:
    """Everything that a start printed and wrote; what the test itself wrote is no output."""
    files = (p for p in folder.rglob("*") if p.is_file() and inputs not in p.parents)
    return {
        "stdout": result.out.encode(),
        "stderr": result.err.encode(),
        **{str(path.relative_to(folder)): path.read_bytes() for path in files},
    }


class Arguments:
    """The command lines of all that descends from a start, read from /proc while it runs."""

    def __init__(self, start: Start) -> None:
        self.start, self.seen, self.processes = start, set[bytes](), set[int]()

    def watch(self) -> Result:
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        result = self.start.wait()
        thread.join()
        return result

    def _read(self) -> None:
        while self.start.process.poll() is None:
            commands = self.start.commands()
            self.seen |= set(commands.values())
            self.processes |= commands.keys()
            time.sleep(0.2)


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "inputs"
    folder.mkdir()
    return folder


def test_a_run_shows_no_secret_to_anyone(entrypoint: Entrypoint, inputs: Path) -> None:
    names = (
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "COMET_API_KEY", "RUNPOD_API_KEY",
    )  # fmt: skip
    planted = {name: plant() for name in names}
    environ = dict(planted)
    for name in ("WANDB_API_KEY", "COMET_API_KEY"):
        (inputs / name).write_text(environ.pop(name) + "\n")
        environ[f"{name}_FILE"] = str(inputs / name)
    for name in ("HF_ENDPOINT", "MLFLOW_REGISTRY_URI", "HTTPS_PROXY"):
        planted[name] = f"pw{secrets.token_hex(12)}"
        environ[name] = f"http://ada:{planted[name]}@127.0.0.1:9"
    store = entrypoint.folder / "mlflow.db"
    environ |= {"WANDB_MODE": "offline", "AXOLOTL_MAX_STEPS": "2", "SFT_LOG_LEVEL": "DEBUG"}
    environ |= {"AXOLOTL_USE_MLFLOW": "true", "MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
    message = entrypoint.folder / "message"
    arguments = Arguments(entrypoint.start(**environ, TERMINATION_LOG_FILE=str(message)))
    result = arguments.watch()
    assert result.code == 0, result.err[-3000:]
    assert len(arguments.processes) > 2, "no child was seen"
    outputs = left(entrypoint.folder, result, inputs)
    assert any(name.endswith(".wandb") for name in outputs)
    [yaml] = entrypoint.folder.glob("outputs/*/config/axolotl.yaml")
    assert "wandb_project: envtune" in yaml.read_text()
    assert b"train_loss" in outputs[store.name]
    outputs["argv"] = b"\n".join(arguments.seen)
    assert not leaks(planted, outputs)


LOUD = '''
"""A plugin that tells all that it knows, in every form, and fails with it."""
import base64, json, os, sys, time
from urllib.parse import quote, unquote
from axolotl.integrations.base import BasePlugin

class Loud(BasePlugin):
    def pre_model_load(self, cfg):
        told = [os.environ[name] for name in os.environ["LOUD"].split(",")]
        for value in told:
            raw = value.encode()
            forms = (value, repr(value), json.dumps(value), quote(value), quote(value, safe=""),
                     unquote(value), base64.b64encode(raw).decode(), repr(raw), raw.hex())
            for form in forms:
                print("value:", form, flush=True)
            sys.stdout.write(value[: len(value) // 2])  # one value over two reads
            sys.stdout.flush()
            time.sleep(0.3)
            sys.stdout.write(value[len(value) // 2 :] + chr(10))
            sys.stdout.flush()
        raise RuntimeError("the service said no to " + " and ".join(told))
'''


def _of_several_lines() -> str:
    """As a private key is: any of its lines tells some of it."""
    return "\n".join(f"-----{secrets.token_hex(16)}-----" for _ in range(3))


def test_a_crash_behind_a_dead_tracker_and_proxy_shows_no_secret_in_any_form(
    entrypoint: Entrypoint, inputs: Path
) -> None:
    (inputs / "loud.py").write_text(LOUD)
    names = (
        "GITHUB_PAT", "DB_PASS", "PGPASS", "HF_TOKEN_READ", "AWS_ACCESS_KEY_ID", "SLACK_WEBHOOK_URL",
        "OTEL_EXPORTER_OTLP_HEADERS", "GOOGLE_CREDENTIALS", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN",
    )  # fmt: skip
    planted = {name: plant() for name in names}
    planted["DEPLOY_SSH_PRIVATE_KEY"] = _of_several_lines()
    environ = {**planted, "LOUD": ",".join(planted), "PYTHONPATH": str(inputs)}
    for number, line in enumerate(planted.pop("DEPLOY_SSH_PRIVATE_KEY").splitlines()):
        planted[f"line {number}"] = line
    for name, odd in (("HTTPS_PROXY", "@"), ("HTTP_PROXY", "#")):
        planted[name] = f"pw{secrets.token_hex(12)}"
        environ[name] = f"http://ada:{quote(odd)}{planted[name]}@127.0.0.1:9"
    environ |= {"AXOLOTL_PLUGINS": "loud.Loud", "AXOLOTL_MAX_STEPS": "2", "SFT_LOG_LEVEL": "DEBUG"}
    environ |= {"AXOLOTL_USE_MLFLOW": "true", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    message = entrypoint.folder / "message"
    arguments = Arguments(entrypoint.start(**environ, TERMINATION_LOG_FILE=str(message)))
    result = arguments.watch()
    outputs = left(entrypoint.folder, result, inputs)
    said = b"".join(outputs.values())
    assert result.code == 203, result.err[-3000:]
    assert b"the service said no to" in said, "the plugin was not heard"
    assert said.count(b"[secret]") > 9 * len(planted), "not every form was said"
    outputs["argv"] = b"\n".join(arguments.seen)
    assert not leaks(planted, outputs)


@pytest.mark.parametrize("verb", ["check", "configure", "explain", "run"])
@pytest.mark.parametrize(
    "place", ["variable", "part", "path", "base64", "file", "url", "query", "token"]
)
def test_a_secret_where_none_belongs_is_refused_and_not_shown(
    place: str, verb: str, settings: dict[str, str], tmp_path: Path, inputs: Path
) -> None:
    value = f"Pl4nt{secrets.token_hex(12)}"
    document = json.dumps(dict.fromkeys(SECRET_KEYS, value))
    (inputs / "config.json").write_text(document)
    (inputs / "token").write_text(value)
    given = {
        "variable": {"AXOLOTL_COMET_API_KEY": value},
        "part": {"AXOLOTL_DATASETS__0__HUB_TOKEN": value},
        "path": {"SFT_TRAINER_CONFIG_JSON_PATH": str(inputs / "config.json")},
        "base64": {"SFT_TRAINER_CONFIG_JSON_ENV_VAR": base64.b64encode(document.encode()).decode()},
        "file": {"HF_TOKEN_FILE": str(inputs / "token"), "AXOLOTL_LORA_R": value},
        "url": {"AXOLOTL_BASE_MODEL": f"https://ada:{value}@127.0.0.1/model"},
        "query": {"AXOLOTL_BASE_MODEL": f"https://127.0.0.1/model?token={value}"},
        "token": {"AXOLOTL_HUB_TOKEN": value},
    }[place]
    words = [verb, *(["learning_rate"] if verb == "explain" else [])]
    result = envtune(*words, cwd=tmp_path, environ=clean_environ(**{**settings, **given}))
    assert result.code == 1, result.err[-2000:]
    assert "Traceback" not in result.err
    assert not leaks({place: value}, left(tmp_path, result, inputs))
