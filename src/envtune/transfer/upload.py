"""Sends a folder to where it is published: python -m envtune.transfer.upload ORDER.json

A child of its own, so that a stop ends an upload that waits for the network. What is there
and equal is not sent again; a place counts as done when its own listing says so. The order
names the `targets`, each with its folder; `result` gets what came of it, place by place.
"""

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from envtune import files
from envtune.artifacts import modelfiles
from envtune.errors import Exit
from envtune.settings import sources
from envtune.transfer.stores import Denied, Held, Objects, Unreached

# Seconds before each further try.
PAUSES = (1, 2, 4, 8, 16)
# Of another artifact, that would be loaded in the place of this one.
_MODEL = re.compile(
    r"(.*/)?((adapter_)?model[\w.-]*\.(safetensors|bin|json)|(adapter_)?config\.json"
    r"|chat_template\.jinja|added_tokens\.json|generation_config\.json)"
)


class Store(Protocol):
    """A place to publish to."""

    @property
    def url(self) -> str:
        """Where people look at it."""

    def listing(self) -> dict[str, Held]:
        """What is there, by name."""

    def send(self, files: Mapping[str, Path], gone: list[str]) -> None:
        """Puts files under their names and removes others."""

    def commit(self) -> str | None:
        """What names this state of the place, if anything does."""


def push(store: Store, folder: Path, pauses: tuple[float, ...] = PAUSES) -> dict[str, Any]:
    """Makes a place hold a folder's files. Returns what was sent.

    Raises Denied, and Unreached where it is not done after the last pause.
    """
    wanted = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    sent: set[str] = set()
    for pause in (*pauses, None):
        try:
            _send(store, wanted, sent)
            return {"url": store.url, "commit": store.commit(), **_figures(wanted, sent)}
        except Unreached as error:
            if pause is None:
                raise
            print(f"push: {error}; trying again in {pause} s", flush=True)
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _send(store: Store, wanted: Mapping[str, Path], sent: set[str]) -> None:
    """One try: sends what differs, and asks the place for its listing again."""
    lost, gone = _differing(store.listing(), wanted)
    if not lost and not gone:
        return
    sent.update(lost)
    store.send(lost, gone)
    lost, gone = _differing(store.listing(), wanted)
    if lost or gone:
        raise Unreached(f"{store.url}: {', '.join([*lost, *gone])} is not there as it was sent")


def _differing(
    held: Mapping[str, Held], wanted: Mapping[str, Path]
) -> tuple[dict[str, Path], list[str]]:
    """What is to be sent, and what of another artifact is to go."""
    lost = {n: path for n, path in wanted.items() if n not in held or not held[n].equals(path)}
    gone = [name for name in held if name not in wanted and _MODEL.fullmatch(name)]
    return lost, gone


def _figures(wanted: Mapping[str, Path], sent: set[str]) -> dict[str, Any]:
    sizes = {name: path.stat().st_size for name, path in wanted.items()}
    return {
        "files": len(wanted),
        "bytes": sum(sizes.values()),
        "sent_bytes": sum(sizes[name] for name in sent),
    }


def begin(store: Store, folder: Path, places: Path) -> None:
    """Notes a place as one that this run publishes to, before anything is sent there.

    Raises Denied where it is none yet and holds others' files under the names that are sent, or a
    model of theirs: a store keeps no history of what is written over.
    """
    known = files.read_json(places) if places.exists() else []
    if store.url in known:
        return
    wanted = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    held = store.listing()
    lost, gone = _differing(held, wanted)
    if taken := sorted({*(held.keys() & lost.keys()), *gone}):
        what = f"{store.url} holds {', '.join(taken)}, which this run has not put there"
        raise Denied(f"{what}; name another place in SFT_PUSH_TO, or move them away")
    files.write_json(places, [*known, store.url])


def _store(target: Mapping[str, Any], environ: Mapping[str, str]) -> Store:
    if not target["id"]:
        return Objects(target["url"], environ)
    from envtune.transfer.hub import Hub
    from envtune.transfer.hubstore import HubRepository

    return HubRepository(Hub(environ), target["id"], target["revision"], private=target["private"])


def main() -> int:
    order, environ = modelfiles.read_json(Path(sys.argv[1])), sources.read().environ
    told: dict[str, Any] = {"targets": [], "exit": Exit.DONE, "message": ""}
    try:
        for target in order["targets"]:
            store = _store(target, environ)
            if not target["id"] and not target["known"]:
                begin(store, Path(target["folder"]), Path(order["places"]))
            told["targets"].append(push(store, Path(target["folder"])))
    except Denied as error:
        told |= {"exit": Exit.ACCESS, "message": str(error)}
    except Unreached as error:
        told |= {"exit": Exit.NETWORK, "message": str(error)}
    files.write_json(Path(order["result"]), told)
    return int(told["exit"])


if __name__ == "__main__":
    sys.exit(main())
