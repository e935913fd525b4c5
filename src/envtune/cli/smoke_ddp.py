"""The verb that tries whether the processes of all nodes can train together."""

import argparse
import sys
import tempfile
from pathlib import Path

from envtune.cli.console import Discreet
from envtune.cli.termination import Result
from envtune.cli.work import need_engines
from envtune.errors import Refused
from envtune.machine import hardware, rendezvous
from envtune.render import smoke_ddp as rendering
from envtune.settings import sources

# Seconds that nodes wait for each other, as by SFT_RENDEZVOUS_SECONDS.
_PATIENCE = 1800


def add_flags(parser: argparse.ArgumentParser) -> None:
    for name, (kind, default, meaning) in rendering.FLAGS.items():
        help_ = f"{meaning} ({default})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=help_)
    each = "processes on this node: as many as GPUs, else 1"
    parser.add_argument("--nproc", type=rendering.FLAGS["epochs"][0], metavar="N", help=each)
    parser.add_argument("--backend", choices=("gloo", "nccl"), help="nccl where there is a GPU")


def smoke_ddp(args: argparse.Namespace) -> Result:
    """train a small network over all processes and nodes: can they, and how fast is the link?"""
    from envtune.supervise import descendants, smoke_ddp
    from envtune.supervise.signals import StopSignals

    need_engines("smoke-ddp")
    inputs = sources.read()
    wanted = _wanted(args, inputs)
    descendants.adopt_orphans()
    flags = {name: getattr(args, name) for name in rendering.FLAGS}
    with tempfile.TemporaryDirectory() as folder:
        plan = rendering.plan(flags, wanted, inputs.passed_on, Path(folder), sys.executable)
        clean = Discreet(inputs.environ).clean
        return smoke_ddp.run(plan, clean, StopSignals().install())


def _wanted(args: argparse.Namespace, inputs: sources.Inputs) -> rendering.Processes:
    """Raises Refused where it cannot be had here."""
    where = rendezvous.Rendezvous()
    if not rendering.is_rank(inputs.environ):
        where, problems = rendezvous.read(inputs.environ)
        if problems:
            raise Refused(problems)
    on_cpu = inputs.environ.get("SFT_DEVICE") == "cpu"
    gpus = 0 if on_cpu else len(hardware.probe(inputs.environ).gpus)
    wanted = rendering.Processes(
        rendering.count(where, gpus, args.nproc),
        args.backend or ("nccl" if gpus else "gloo"),
        where,
        int(inputs.environ.get("SFT_RENDEZVOUS_SECONDS") or _PATIENCE),
    )
    if problem := rendering.problem(wanted, gpus):
        raise Refused([problem])
    return wanted
