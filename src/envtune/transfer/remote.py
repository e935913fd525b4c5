"""Data sets of stores and web servers: from here on they are files of this machine.

They are fetched before the data is looked at, so that columns, checks, the run's key and the
prepared rows go by what is in the files, as with any other. What only looks asks nobody: it takes
the newest copy that is here, and leaves an address, without its key, where there is none.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from envtune.errors import Exit, Problem, Refused, of_file
from envtune.failures.table import recognise
from envtune.resolve.facts import READERS
from envtune.settings import paths
from envtune.settings.typed import Setting, Settings
from envtune.transfer import addresses, stores
from envtune.transfer.addresses import shown
from envtune.transfer.copies import Copy
from envtune.transfer.patience import pause
from envtune.transfer.stores import Denied, Unreached

LOG = logging.getLogger("envtune")
_SECONDS, _LOCAL_ONLY = "SFT_FETCH_SECONDS", "SFT_LOCAL_FILES_ONLY"
_FIX = "name another folder in HF_HOME or SFT_CACHE_DIR"


def located(settings: Settings, environ: Mapping[str, str], *, fetch: bool) -> Settings:
    """`settings` with the data sets where they lie on this machine. Raises Refused.

    `fetch`: what is not here, or no longer as it is there, is fetched.
    """

    def here(item: Mapping[str, Any], name: str) -> dict[str, Any]:
        return item_here(item, name, settings.get, environ, fetch=fetch)

    made = _changed(settings, here)
    notes = list(_notes(settings, made)) if not fetch else []
    return replace(made, notes=(*made.notes, *notes))


def unfetched(settings: Settings) -> Settings | None:
    """`settings` with no key in an address, or None where there is no address."""
    found = any(addresses.of(item) for _, item in _items(settings))
    return _changed(settings, lambda item, name: _without_keys(item)) if found else None


def _changed(
    settings: Settings, change: Callable[[Mapping[str, Any], str], Mapping[str, Any]]
) -> Settings:
    """`settings` with each data set that is elsewhere changed."""
    changed = dict(settings.axolotl)
    for key, setting in _given(settings).items():
        several = [
            change(item, setting.at(number, "path"))
            if isinstance(item, Mapping) and addresses.of(item)
            else item
            for number, item in enumerate(setting.value)
        ]
        changed[key] = replace(setting, value=several)
    return replace(settings, axolotl=changed)


def _notes(before: Settings, after: Settings) -> Iterator[str]:
    """What one who only looks has to know of data that is elsewhere."""
    for (name, item), (_, made) in zip(_items(before), _items(after), strict=True):
        if urls := addresses.of(item):
            what = f"{name}: {', '.join(map(shown, urls))}"
            if addresses.of(made):
                yield f"{what} is fetched when a run starts; its rows are looked at then"
            else:
                yield f"{what} as it was fetched last, in {made['path']}"


def problems(settings: Settings) -> list[Problem]:
    """What is wrong with the addresses of data sets, told without a network."""
    return [
        Problem(setting.at(number, *filter(None, [key])), what)
        for setting in _given(settings).values()
        for number, item in enumerate(setting.value)
        if isinstance(item, Mapping)
        for key, what in addresses.refusals(item)
    ]


def _given(settings: Settings) -> dict[str, Setting]:
    found = {key: settings.axolotl[key] for key in paths.FETCHED if key in settings.axolotl}
    return {key: setting for key, setting in found.items() if isinstance(setting.value, list)}


def _items(settings: Settings) -> list[tuple[str, Mapping[str, Any]]]:
    """Each data set and the name of what says where it is."""
    return [
        (setting.at(number, "path"), item)
        for setting in _given(settings).values()
        for number, item in enumerate(setting.value)
        if isinstance(item, Mapping)
    ]


def item_here(
    item: Mapping[str, Any],
    name: str,
    setting: Callable[[str], Any],
    environ: Mapping[str, str],
    *,
    fetch: bool,
) -> dict[str, Any]:
    """A data set with its files on this machine, or, where it is not here and is not to be
    fetched, its addresses without a key. Raises Refused."""
    urls = addresses.of(item)
    outputs, _ = paths.folders(setting, environ)
    root = Path(paths.kept(setting("SFT_CACHE_DIR"), environ, outputs)) / "remote"
    copy, what = Copy(root, urls), ", ".join(map(shown, urls))
    here, local_only = copy.there(), setting(_LOCAL_ONLY)
    if local_only and here is None:
        why = f"{what} is not in the cache and {_LOCAL_ONLY} is set; give a local file"
        raise Refused([Problem(name, why, Exit.ACCESS)])
    if fetch and not local_only:
        here = _Fetch(copy, name, what, environ, setting(_SECONDS)).result(here)
    return _without_keys(item) if here is None else _in_place(item, here, copy.members(here))


def _in_place(item: Mapping[str, Any], folder: Path, found: Sequence[Path]) -> dict[str, Any]:
    """A data set that names its files: as the path, or as data_files below one."""
    if not item.get("data_files"):
        return {**item, "path": str(found[0])}
    reader = {"ds_type": item["path"]} if item.get("path") in READERS else {}
    if len(found) == 1:
        left = {key: value for key, value in item.items() if key != "data_files"}
        return {**reader, **left, "path": str(found[0])}
    return {**reader, **item, "path": str(folder), "data_files": [str(path) for path in found]}


def _without_keys(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item that may be shown."""
    given = item.get("data_files")
    files = [shown(one) for one in given] if isinstance(given, list) else given and shown(given)
    path = str(item.get("path") or "")
    named = {"path": shown(path)} if addresses.is_remote(path) else {}
    return {**item, **named, **({"data_files": files} if files else {})}


class _Fetch:
    """All tries to fetch one data set."""

    def __init__(
        self, copy: Copy, name: str, what: str, environ: Mapping[str, str], seconds: int
    ) -> None:
        self.copy, self.name, self.what = copy, name, what
        self.environ, self.seconds = environ, seconds

    def result(self, old: Path | None) -> Path:
        """The folder of the copy. `old` is what counts where nobody answers. Raises Refused."""
        for url in self.copy.urls:
            if addresses.scheme(url) in addresses.STORES:
                stores.load(url)
        started, fruitless, tries = time.monotonic(), 0, 1
        while True:
            self.copy.moved = 0
            try:
                return self._once(started)
            except Unreached as error:
                if old is not None:
                    LOG.warning("fetch: %s; the copy in %s is used", error, old)
                    return old
                fruitless = 0 if self.copy.moved else fruitless + 1
                wait = pause(fruitless, random.random(), error.after)
                spent = time.monotonic() - started
                if spent + wait >= self.seconds:
                    raise self._refused(self._given_up(error, tries), Exit.NETWORK) from None
                tries += 1
                LOG.warning("fetch: %s; try %d in %.0f s", error, tries, wait)
                time.sleep(wait)

    def _given_up(self, error: Unreached, tries: int) -> str:
        tried = f"{tries} {'try' if tries == 1 else 'tries'} ({_SECONDS} is {self.seconds})"
        return f"{error}; gave up after {tried}; what has come stays, the next start goes on"

    def _once(self, started: float) -> Path:
        try:
            folder, count, size = self.copy.bring(self.environ)
        except Denied as error:
            what = f"{error}; check the address and its credentials"
            raise self._refused(what, Exit.ACCESS) from None
        except Refused as refused:
            named = [replace(one, name=one.name or self.name) for one in refused.problems]
            raise Refused(named) from None
        except OSError as error:
            raise self._of_this_machine(error) from None
        if not count:
            LOG.info("fetch: %s is in the cache", self.what)
        else:
            seconds = time.monotonic() - started
            came = f"{count} {'file' if count == 1 else 'files'}, {size:,} bytes"
            LOG.info("fetch: %s: %s, in %.0f s", self.what, came, seconds)
        return folder

    def _of_this_machine(self, error: OSError) -> Refused:
        known = recognise(str(error))
        if (known and known.exit == Exit.DISK) or of_file(error)[0] == Exit.DISK:
            fix = f"free space, or {_FIX}; the next start goes on"
            return self._refused(f"{self.what}: {error.strerror}; {fix}", Exit.DISK)
        where = error.filename or self.copy.base
        return self._refused(f"{where} cannot be written: {error.strerror}; {_FIX}", Exit.CONFIG)

    def _refused(self, what: str, exit_: Exit) -> Refused:
        return Refused([Problem(self.name, what, exit_)])
