"""`envtune status` of real runs, asked again and again while they work."""

import json
import time

from envtune.errors import Exit
from envtune.runs import folders
from envtune.watch import standing
from tests.harness import Entrypoint, Result, Start


def _until_it_ends(start: Start) -> tuple[list[str], Result]:
    """The states that were seen, each where it changed, and how it ended."""
    seen: list[str] = []
    while start.process.poll() is None:
        folder = start.only_run()
        if folders.read_record(folder):
            state = standing.of(folders.open_run(folder)).state
            if state not in seen[-1:]:
                seen.append(state)
        time.sleep(0.05)
    return seen, start.wait()


def test_a_run_is_told_truly_from_its_beginning_to_a_stop_and_its_end(
    entrypoint: Entrypoint, forking: dict[str, str]
) -> None:
    start = entrypoint.start(**forking)
    start.until_step(2)
    assert standing.of(folders.open_run(start.only_run())).state in ("training", "saving")
    start.signal()
    assert start.wait().code == Exit.STOPPED
    run = folders.open_run(start.only_run())
    stopped = standing.of(run)
    assert stopped.state == "stopped"
    assert stopped.text.startswith(f"ended with 143 at step {stopped.step} of 38")
    assert stopped.checkpoint == f"checkpoint-{stopped.step}"

    seen, told = _until_it_ends(entrypoint.start(**forking))
    assert told.code == 0, told.err[-3000:]
    order = ["preparing", "loading", "training", "working"]
    met = [state for state in seen if state in order]
    # Each is met once, in this order; the shortest may pass between two looks.
    assert list(dict.fromkeys(met)) == [state for state in order if state in met]
    assert "training" in met and "loading" in met, seen
    assert set(seen) <= {*order, "fetching", "waiting", "saving", "stopped", "done"}, seen

    asked = entrypoint.run("envtune", "status", "--json")
    last = json.loads(asked.out)
    assert (asked.code, last["state"], last["step"]) == (0, "done", 38)
    assert last["text"] == f"is done: {run.folder}/adapter"
    assert entrypoint.run("envtune", "welcome").out.count(f"{run.name} is done: ") == 1
