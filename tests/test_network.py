"""What a run says to the outside: nothing, when model and data are local."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Entrypoint, Quiet, serving

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


def test_a_local_run_asks_the_hub_nothing_although_it_may(
    entrypoint: Entrypoint, listener: str
) -> None:
    run = entrypoint.train(HF_ENDPOINT=listener, HF_HUB_OFFLINE="", AXOLOTL_MAX_STEPS="2")
    assert (run / ".complete").exists()
    assert Listener.seen == []


def test_tracking_offline_keeps_its_files_and_the_key_is_nowhere(entrypoint: Entrypoint) -> None:
    run = entrypoint.train(
        WANDB_MODE="offline", WANDB_API_KEY=CANARY, AXOLOTL_MAX_STEPS="2", WANDB_SILENT="true"
    )
    assert "wandb_project: envtune" in (run / "config" / "axolotl.yaml").read_text()
    assert list(run.rglob("*.wandb"))
    for path in (p for p in entrypoint.folder.rglob("*") if p.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path


def test_a_project_without_a_key_is_neither_a_prompt_nor_a_crash(entrypoint: Entrypoint) -> None:
    run = entrypoint.train(AXOLOTL_WANDB_PROJECT="mine", AXOLOTL_MAX_STEPS="2")
    assert json.loads((run / "report.json").read_text())["steps"] == 2
    assert not list(Path(run).rglob("*.wandb"))
