"""The rendezvous variables -> which node this is and where the nodes meet. Pure.

The names are torchrun's, Kubernetes operators' and accelerate's. They are read here and
never passed on: a child that saw WORLD_SIZE or RANK would believe that it is a rank. What
they leave open a platform may say by names of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.errors import Problem
from envtune.machine import platforms

FLAGS = "SFT_ACCELERATE_LAUNCH_ARGS"
_PORT = 29500

# Field -> its names, its smallest and its largest value. The last name is a flag's.
_NUMBERS = {
    "nodes": (("NNODES", "PET_NNODES", f"{FLAGS}: num_machines"), 1, 100_000),
    "rank": (("NODE_RANK", "PET_NODE_RANK"), 0, 100_000),
    "port": (("MASTER_PORT", "PET_MASTER_PORT", f"{FLAGS}: main_process_port"), 1, 65535),
    "local": (("NPROC", "NGPU", "NUM_GPUS", "PET_NPROC_PER_NODE"), 1, 1024),
    "world": (("WORLD_SIZE", f"{FLAGS}: num_processes"), 1, 1_000_000),
}
# torchrun's words for as many as there are. Kubeflow's operator then counts pods by WORLD_SIZE.
_EVERY = ("0", "auto", "gpu", "cpu")
_ADDRESS = ("MASTER_ADDR", "PET_MASTER_ADDR", f"{FLAGS}: main_process_ip")

# Set by torchrun for a rank, and by nobody for us.
OF_A_RANK = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
)  # fmt: skip
VARIABLES = frozenset(
    (*OF_A_RANK, *_ADDRESS, *(name for names, _, _ in _NUMBERS.values() for name in names))
)


@dataclass(frozen=True)
class Rendezvous:
    """What the variables say. `local` ranks on a node, `world` on all; None: not said."""

    nodes: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int | None = None
    local: int | None = None
    world: int | None = None

    @property
    def meeting(self) -> tuple[str, int]:
        """Host and port where the nodes meet."""
        return self.address, self.port or _PORT

    @property
    def on_loopback(self) -> bool:
        """Whether every rank is on this machine."""
        return self.address in ("localhost", "::1") or self.address.startswith("127.")


def named(flags: Mapping[str, Any] | None) -> dict[str, Any]:
    """Flags of `accelerate launch` by their names with underscores."""
    return {name.replace("-", "_"): value for name, value in (flags or {}).items()}


def read(
    environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> tuple[Rendezvous, list[Problem]]:
    """The rendezvous of an environment and of accelerate's flags, and what is wrong."""
    given = {**environ, **{f"{FLAGS}: {name}": str(v) for name, v in (flags or {}).items()}}
    if environ.get("PET_NPROC_PER_NODE", "").strip() in _EVERY:
        given.pop("WORLD_SIZE", None)
    said = platforms.said(environ)
    problems: list[Problem] = list(platforms.problems(environ))
    found: dict[str, Any] = {}
    names_of: dict[str, str] = {}
    for field, (names, low, high) in _NUMBERS.items():
        text = _agreed(given, names, problems)
        if not text and (field != "rank" or (found.get("nodes") or 1) > 1):
            text = said.get(field)
        if text and not (text[1] in _EVERY and field == "local"):
            found[field] = _number(*text, low, high, problems)
            names_of[field] = text[0]
    if address := _agreed(given, _ADDRESS, problems) or said.get("address"):
        names_of["address"], found["address"] = address
    if problems:
        return Rendezvous(), problems
    result = Rendezvous(**found)
    return result, list(_wrong(result, names_of))


def rank(environ: Mapping[str, str], nodes: int) -> int:
    """Which of `nodes` this is; `read` has checked it."""
    names, *_ = _NUMBERS["rank"]
    text = _agreed(environ, names, []) or platforms.said(environ).get("rank")
    return int(text[1]) if text and nodes > 1 else 0


def _agreed(
    given: Mapping[str, str], names: tuple[str, ...], problems: list[Problem]
) -> tuple[str, str] | None:
    """The first name that is set and its text; a problem where another one contradicts."""
    texts = [(name, text) for name in names if (text := given.get(name, "").strip())]
    problems += [
        Problem(name, f"is {text} and {texts[0][0]} is {texts[0][1]}; set one of them")
        for name, text in texts[1:]
        if text != texts[0][1]
    ]
    return texts[0] if texts else None


def _number(name: str, text: str, low: int, high: int, problems: list[Problem]) -> int | None:
    if text.isascii() and text.isdigit() and low <= int(text) <= high:
        return int(text)
    allowed = f"a whole number from {low} to {high}"
    problems.append(Problem(name, f"{text!r} is not allowed; allowed: {allowed}"))
    return None


def _wrong(found: Rendezvous, names: Mapping[str, str]) -> Iterator[Problem]:
    if found.rank >= found.nodes:
        yield Problem(
            names["rank"],
            f"is {found.rank} of {found.nodes} nodes; they count from 0: set NNODES to how many "
            "there are",
        )
    if found.nodes > 1 and "rank" not in names:
        yield Problem("NODE_RANK", f"is not set and NNODES is {found.nodes}; 0 is the first node")
    if found.nodes > 1 and "address" not in names:
        yield Problem(
            "MASTER_ADDR",
            f"is not set and NNODES is {found.nodes}; name the host of node 0, the same on all",
        )
    if found.world and found.world % found.nodes:
        what = f"{found.world} cannot be divided among {found.nodes} nodes"
        yield Problem(names["world"], what)
    elif found.world and found.local and found.world != found.local * found.nodes:
        yield Problem(
            names["world"],
            f"is {found.world}, and {found.nodes} nodes with {found.local} processes each make "
            f"{found.local * found.nodes}; unset it, or correct NNODES or NPROC",
        )
