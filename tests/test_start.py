"""A trainer that imports while other things are done: it trains nothing that is refused."""

import random
from pathlib import Path

from envtune.render.launch import WAIT
from tests.harness import Entrypoint, Start


def _waits(start: Start) -> bool:
    return any(WAIT.encode() in command.split(b"\0") for command in start.commands().values())


def test_rows_that_are_refused_leave_no_trainer_and_no_training(
    settings: dict[str, str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    good = Path(settings["AXOLOTL_DATASETS__0__PATH"]).read_text()
    rows.write_text(good * 60 + '{"messages": [{"role": "user"}]}\n')
    start = Entrypoint(tmp_path, settings).start(AXOLOTL_DATASETS__0__PATH=str(rows))
    start.until(lambda: _waits(start))
    result = start.wait()
    assert result.code == 3, result.err[-2000:]
    assert not start.left_over()
    assert not (start.only_run() / "outcome.json").exists()
    assert "train:" not in "".join(result.said)


def test_a_stop_while_it_imports_leaves_none_and_the_next_start_trains(
    settings: dict[str, str], forking: dict[str, str], tmp_path: Path, dice: random.Random
) -> None:
    entrypoint = Entrypoint(tmp_path, settings)
    start = entrypoint.start()
    start.until(lambda: _waits(start))
    start.signal()
    result = start.wait()
    assert result.code == 143, result.err[-2000:]
    assert not start.left_over()
    run = entrypoint.train(AXOLOTL_MAX_STEPS="1", **forking)
    again = Entrypoint(tmp_path, settings).run(AXOLOTL_MAX_STEPS="1", **forking)
    assert (again.code, (run / ".complete").exists()) == (0, True)
    assert "already done" in again.err
