"""Brings the models of a run into the Hub's cache, before any GPU and any other node waits.

Every node does, at each start of a run that is not done: a new pod may have an empty cache.
One process asks the Hub in place of all ranks, and is started again until it is done or
SFT_FETCH_SECONDS are over. The Hub's data sets are left to Axolotl, whose library takes none from
the Hub's cache; what stores and web servers hold came before (`transfer.remote`).
"""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from envtune import files
from envtune.artifacts import modelfiles
from envtune.errors import Exit
from envtune.render import launch
from envtune.settings import paths
from envtune.stages import training
from envtune.supervise import nodes, worker
from envtune.supervise.progress import Transferred, amount, span
from envtune.supervise.stage import LOG, Context, Ended, stopped
from envtune.transfer import hub, repositories
from envtune.transfer.patience import pause
from envtune.transfer.repositories import Repository

_SECONDS = "SFT_FETCH_SECONDS"
# The pause between two looks for a stop, seconds.
_LOOK = 0.2


def fetch(context: Context) -> None:
    """Fetches what is not there yet. Nothing, where nothing may or has to come. Raises Ended."""
    wanted = repositories.of_models(context.config)
    closed = context.config.setting("SFT_LOCAL_FILES_ONLY") or hub.offline(context.environ)
    if not wanted or closed or context.config.offline:
        return
    started = time.monotonic()
    told = _until_no_more(context, wanted)
    if told["exit"]:
        raise Ended(Exit(told["exit"]), context.clean(told["message"]))
    _tell(wanted, told, time.monotonic() - started)


def _until_no_more(context: Context, wanted: Sequence[Repository]) -> Mapping[str, Any]:
    """What came of the last try, after which none is needed or none would help. Raises Ended."""
    started, limit = time.monotonic(), context.config.setting(_SECONDS)
    tries, fruitless, why, more = 1, 0, "", dict[str, str]()
    while (told := _try(context, wanted, started + limit - time.monotonic(), more))["again"]:
        before, why = why, context.clean(told["message"])
        fruitless = 0 if told["moved"] else fruitless + 1
        wait, spent = pause(fruitless, random.random(), told["after"]), time.monotonic() - started
        if spent + wait >= limit:
            both = "; ".join(dict.fromkeys(filter(None, (before, why))))
            raise Ended(Exit.NETWORK, _given_up(wanted, both, tries, spent, limit))
        tries += 1
        LOG.warning("fetch: %s; try %d in %.0f s", why, tries, wait)
        _wait(context, wait)
        if told["stalled"]:
            more = {"HF_HUB_DISABLE_XET": "1"}
    return told


def _try(
    context: Context, wanted: Sequence[Repository], seconds: float, more: dict[str, str]
) -> Mapping[str, Any]:
    """What came of one try (see `envtune.transfer.fetch_attempt.Told`)."""
    node, folder = nodes.rank(context), context.run.folder
    path, result = (folder / "config" / f"{name}{node or ''}.json" for name in ("fetch", "fetched"))
    order = {
        "result": str(result),
        "seconds": seconds,
        "code": bool(context.config.plain().get("trust_remote_code")),
        "repositories": [asdict(repository) for repository in wanted],
    }
    files.write_json(path, order)
    result.unlink(missing_ok=True)
    plan = launch.fetch(
        path, sys.executable, folder, _environ(context) | more, training.home(context)
    )
    code, tail = worker.attend(context, "fetch", "fetch", plan, Transferred("fetch"))
    if not result.exists():
        said = tail[-1] if tail else f"ended with code {code}"
        log = context.run.log("fetch", node)
        raise Ended(Exit.BUG, f"fetch failed: {said} (log: {log})")
    return modelfiles.read_json(result)


def _environ(context: Context) -> dict[str, str]:
    caches = paths.caches(context.config.setting("SFT_CACHE_DIR"), context.environ)
    return {**context.environ, **caches}


def _wait(context: Context, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if context.stops.asked:
            raise stopped(context, "fetch")
        time.sleep(_LOOK)


def _given_up(wanted: Sequence[Repository], why: str, tries: int, spent: float, limit: int) -> str:
    names = ", ".join(dict.fromkeys(repository.name for repository in wanted))
    tried = f"{tries} {'try' if tries == 1 else 'tries'} in {span(spent)} ({_SECONDS} is {limit})"
    return f"{names}: {why}; gave up after {tried}; what has come stays, the next start goes on"


def _tell(wanted: Sequence[Repository], told: Mapping[str, Any], seconds: float) -> None:
    if told["files"]:
        what = f"{told['files']} files, {amount(told['size'])}, in {span(seconds)}"
        LOG.info("fetch: %s: %s", _ids(wanted), what)
    else:
        LOG.info("fetch: %s is in the cache", _ids(wanted))


def _ids(wanted: Sequence[Repository]) -> str:
    return ", ".join(repository.id for repository in wanted)
