"""What a run says to the outside: nothing, when model and data are local."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Entrypoint, Quiet, clean_environ, execute, serving

CANARY = "wandb0123456789abcdef0123456789abcdef0123"


class Listener(Quiet):
    """Stands where the Hub would be and notes who asks."""

    seen: list[str]

    def do_GET(self) -> None:
        type(self).seen.append(self.path)
        self.send_error(404)

    do_HEAD = do_POST = do_GET


@pytest.fixture
def listener() -> Iterator[str]:
    Listener.seen = []
    with serving(Listener) as url:
        yield url


# Python runs this in every process of a run. It notes every address that is looked up or
# connected to, the Hub's or anybody's; a path is a socket between processes here.
WATCH = """
import os, sys

def _note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect", "socket.sendto"):
        where = arguments if event == "socket.getaddrinfo" else arguments[1]
        if isinstance(where, tuple):
            with open(os.environ["WATCHED"], "a") as stream:
                stream.write(f"{event} {where} by {sys.argv}\\n")

sys.addaudithook(_note)
"""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """Variables that make a run note its connections in the file WATCHED."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    return {"PYTHONPATH": str(tmp_path / "watch"), "WATCHED": str(tmp_path / "watched")}


def test_a_local_run_touches_no_network_although_it_may(
    entrypoint: Entrypoint, listener: str, watched: dict[str, str]
) -> None:
    """With the tokenizer in the model's folder and a project of W&B's without a key, which is
    neither a prompt nor a crash; then with a tokenizer of its own and a token at hand."""
    run = entrypoint.train(
        **watched,
        HF_ENDPOINT=listener,
        HF_HUB_OFFLINE="",
        AXOLOTL_MAX_STEPS="2",
        AXOLOTL_WANDB_PROJECT="mine",
    )
    assert (run / ".complete").exists()
    assert not list(run.rglob("*.wandb"))
    model, tokenizer = (entrypoint.folder / name for name in ("model", "tokenizer"))
    shutil.copytree(entrypoint.settings["AXOLOTL_BASE_MODEL"], model)
    tokenizer.mkdir()
    for path in [*model.glob("tokenizer*"), *model.glob("*.jinja")]:
        path.rename(tokenizer / path.name)
    run = entrypoint.train(
        **watched,
        HF_ENDPOINT=listener,
        HF_HUB_OFFLINE="",
        HF_TOKEN=CANARY,
        SFT_LOCAL_FILES_ONLY="true",
        AXOLOTL_MAX_STEPS="2",
        AXOLOTL_BASE_MODEL="./model",
        AXOLOTL_TOKENIZER_CONFIG="./tokenizer",
    )
    assert (run / ".complete").exists()
    assert Listener.seen == []
    seen = Path(watched["WATCHED"])
    assert not seen.exists(), seen.read_text()


def test_the_watch_sees_a_connection(listener: str, watched: dict[str, str]) -> None:
    script = f"import urllib.request as r\ntry: r.urlopen({listener!r})\nexcept OSError: pass"
    done = execute([sys.executable, "-c", script], Path("/"), clean_environ(**watched))
    assert done.code == 0, done.err
    assert "socket.connect" in Path(watched["WATCHED"]).read_text()
    assert Listener.seen == ["/"]
