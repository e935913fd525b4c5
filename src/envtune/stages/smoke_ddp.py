"""Tries the processes by a small training before anything of a run is fetched or trained."""

import sys

from envtune.errors import Exit
from envtune.machine import rendezvous
from envtune.render import smoke_ddp as rendering
from envtune.render.launch import LaunchPlan
from envtune.runs import folders
from envtune.supervise import nodes, smoke_ddp
from envtune.supervise.stage import LOG, Context, Ended

SETTING = "SFT_SMOKE_DDP"


def test(context: Context) -> None:
    """Does what SFT_SMOKE_DDP asks for, at every start that is to train. Raises Ended where it
    fails."""
    stages = folders.read_record(context.run.folder).get("stages", {})
    if not context.config.setting(SETTING) or stages.get("train", {}).get("outcome") == "done":
        return
    where, _ = rendezvous.read(context.environ)
    if where.nodes > 1:
        nodes.wait_for_host(context, where)
    exit_, message = smoke_ddp.run(_plan(context, where), context.clean, context.stops)
    if exit_ != Exit.DONE:
        raise Ended(exit_, message)
    LOG.info("%s", message)


def _plan(context: Context, where: rendezvous.Rendezvous) -> LaunchPlan:
    config = context.config
    flags = {name: default for name, (_, default, _) in rendering.FLAGS.items()}
    backend = "nccl" if config.device == "cuda" else "gloo"
    patience = config.setting("SFT_RENDEZVOUS_SECONDS")
    wanted = rendering.Processes(config.parallel.local, backend, where, patience)
    folder = context.run.logs / "smoke-ddp" / f"node{where.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    return rendering.plan(flags, wanted, context.environ, folder, sys.executable)
