"""The verb that tells how one run stands."""

import argparse
import json
from collections.abc import Iterator

from envtune import redaction
from envtune.cli import target
from envtune.cli.console import show
from envtune.cli.termination import Result
from envtune.errors import Exit, Problem, Refused
from envtune.runs import folders
from envtune.settings import sources
from envtune.supervise.progress import span
from envtune.venvs import door
from envtune.watch import standing
from envtune.watch.standing import Standing

_NONE = "none"


def status(args: argparse.Namespace) -> Result:
    """Tells how the named run stands, or the newest. Raises Refused where a named one is none."""
    outputs, _, names = target.named(args)
    if len(names) > 1:
        raise Refused([Problem(names[1], "one run at a time; `envtune runs` lists all")])
    try:
        run = folders.named(outputs, names[0] if names else None)
    except Refused:
        if names:
            raise
        after = f"envtune check && {door()}"
        told: dict[str, object] = {
            "state": _NONE,
            "text": f"no run yet below {outputs}",
            "next": after,
        }
        show(json.dumps(told, indent=2) if args.json else f"{told['text']}\nnext    {after}")
        return Exit.DONE, ""
    seen = standing.of(run)
    text = json.dumps(_plain(seen), indent=2) if args.json else "\n".join(_rows(seen))
    show(redaction.redact(text, sources.read().secrets))
    return Exit.DONE, ""


def _rows(seen: Standing) -> Iterator[str]:
    yield f"run     {seen.run.name}"
    yield f"state   {seen.state}: {seen.text}"
    if seen.step:
        loss = "" if seen.loss is None else f", loss {seen.loss:.4f}"
        left = "" if seen.left is None else f", about {span(seen.left)} left"
        yield f"step    {seen.step} of {seen.max_steps}{loss}{left}"
    if seen.checkpoint:
        yield f"saved   {seen.checkpoint}"
    if seen.heard is not None:
        yield f"heard   {span(seen.heard)} ago"
    yield f"folder  {seen.run.folder}"
    yield f"next    {seen.after}"


def _plain(seen: Standing) -> dict[str, object]:
    return {
        "name": seen.run.name, "folder": str(seen.run.folder), "state": seen.state,
        "text": seen.text, "step": seen.step, "max_steps": seen.max_steps, "loss": seen.loss,
        "seconds_left": seen.left, "checkpoint": seen.checkpoint or None,
        "heard_seconds_ago": seen.heard, "url": seen.url or None, "next": seen.after,
    }  # fmt: skip
