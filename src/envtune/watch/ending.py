"""The last lines of a run: what came of it, where it lies, and what to do next. The page has the
same."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envtune.artifacts import layouts
from envtune.runs import folders
from envtune.runs.contents import CARD, EVAL, PAGE

_PAGES = {"card": CARD, "report": PAGE, "samples": f"{EVAL}/samples.html"}


def text(folder: Path, outcome: str, figures: Mapping[str, str]) -> str:
    """One screen about a run in `folder` that is trained."""
    record = folders.read_record(folder)
    rows = [("outcome", outcome), *figures.items(), *results(folder, record)]
    rows += [*next_steps(folder, record), ("go on", "SFT_RERUN=true trains it once more")]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}  {said}" for name, said in rows)


def results(folder: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was left out of the data, where what was made lies, and how it is asked."""
    stages = record.get("stages", {})
    seconds = {name: stage["seconds"] for name, stage in stages.items() if "seconds" in stage}
    yield "stages", ", ".join(f"{name} {spent:.1f} s" for name, spent in seconds.items())
    if dropped := stages.get("prepare", {}).get("dropped", {}):
        yield "left out", ", ".join(f"{rows:,} rows: {why}" for why, rows in dropped.items())
    if artifact := stages.get("train", {}).get("artifact"):
        yield str(artifact), str(folder / artifact)
    yield from ((name, str(folder / at)) for name, at in _PAGES.items() if (folder / at).exists())
    for sent in stages.get("publish", {}).get("targets", ()):
        yield "published", str(sent["url"])
    if asked := asking(folder):
        yield "ask", asked


def asking(folder: Path) -> str:
    """The call that is right for what was trained, and why it is none of a chat."""
    if (told := layouts.read(folder)) is None:
        return ""
    call = f"POST {told.example['path']} {json.dumps(told.example['body'])}"
    others = f"; also trained: {', '.join(told.others)} (SFT_CHAT_LAYOUT)" if told.others else ""
    how = f": {told.reason}" if told.reason else f", in the layout of {told.name}"
    return f"{call}{how}{others}"


def next_steps(folder: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What can be done from here, and the command that does it."""
    name, trained = record.get("name", folder.name), record.get("stages", {}).get("train", {})
    if trained.get("outcome") != "done":
        yield "resume", "start again with the same variables: it goes on from its checkpoint"
        return
    made = folder / str(trained["artifact"])
    yield "talk", f"envtune chat {name}"
    yield "serve", f"envtune serve {name}"
    yield "fetch", f"docker cp CONTAINER:{made} ."
    yield "", f"kubectl cp POD:{made} {made.name}"
    yield "", f"runpodctl send {made}"
    for sent in record.get("stages", {}).get("publish", {}).get("targets", ()):
        if "://" not in (url := str(sent["url"])):
            yield "", f"hf download {url}"
