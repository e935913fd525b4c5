"""Prepared rows in a folder of their own: which data sets, what was asked, what became of them."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune.data import folder, sets
from envtune.data.batches import BadRow
from envtune.data.taken import counts, preparation, wishes
from envtune.data.taken.preparation import DataSet, Prepared
from envtune.data.taken.split import HELD, TRAIN
from envtune.errors import Exit, Problem, Refused
from envtune.resolve import facts
from envtune.runs import fingerprint
from envtune.settings.own import OWN
from envtune.settings.own.preparation import FILTERS, MIXTURE
from envtune.settings.typed import Settings
from envtune.stages import data_card
from envtune.transfer import datafiles

LOG = logging.getLogger("envtune")
# Axolotl's keys that decide which rows are taken, and how they read.
_KEYS = ("datasets", "test_datasets", "val_set_size", "seed", "dataset_exact_deduplication",
         "shuffle_merged_datasets", "response_template")  # fmt: skip
_FOLDER = "prepared"


def prepare(settings: Settings, environ: Mapping[str, str], *, force: bool, dry: bool) -> str:
    """Prepares the data sets of `settings` into SFT_PREPARED_DIR, and tells what was done.

    Raises Refused for rows and folders that are not to be used; nothing is left behind then.
    """
    where = Path(settings.get("SFT_PREPARED_DIR") or _FOLDER)
    items = _items(settings)
    files = [_files(item, number, settings, environ) for number, item in enumerate(items)]
    asked = _asked(settings, files)
    made = preparation.prepared(
        [_set(item, lie, settings) for item, lie in zip(items, files, strict=True)],
        wishes.wanted(settings.get, _plain(settings)),
    )
    try:
        if dry:
            _told(made, made)
            return "a dry run: nothing was written"
        if (old := folder.state(where)) and not force:
            return _as_it_is(where, old, asked)
        return _written(made, where, asked, settings)
    except BadRow as bad:
        raise Refused([Problem("", str(bad), Exit.DATA)]) from None
    except folder.NotOursError as error:
        raise Refused([Problem("SFT_PREPARED_DIR", str(error))]) from None


def _as_it_is(where: Path, old: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    if old.get("asked") == asked:
        folder.clear_up(where)
        return f"{where} holds these rows already; --force prepares them again"
    now, before = asked["settings"], old.get("asked", {}).get("settings", {})
    names = sorted(n for n in {*now, *before} if now.get(n) != before.get(n)) or ["the data"]
    what = f"{where} holds rows of another {', '.join(names)}; --force prepares anew"
    raise folder.NotOursError(what)


def _written(made: Prepared, where: Path, asked: Mapping[str, Any], settings: Settings) -> str:
    with folder.working(where):
        written = folder.write(where, made)
        _told(made, ())
        state = _state(made, asked, [file.plain() for file in written], settings)
        folder.finish(where, written, state, data_card.text(state))
    return f"wrote {where}; SFT_DATA_DIRS={where} trains on it"


def _told(made: Prepared, rest: Iterable[Any]) -> None:
    """Goes through the `rest`, and says what became of the rows. Raises Refused for none left."""
    for _ in rest:
        pass
    for line in counts.lines(made.counts):
        LOG.info("%s", line)
    if problem := counts.problem(made.counts, made.wanted.held):
        raise Refused([Problem("", problem, Exit.DATA)])


def _items(settings: Settings) -> list[Mapping[str, Any]]:
    """The data sets that are named. Raises Refused where there is none, or one is not there."""
    setting = settings.axolotl.get("datasets")
    if setting is None or not isinstance(setting.value, list) or not setting.value:
        raise Refused([Problem("AXOLOTL_DATASETS", "is not set; name what is to be prepared")])
    lost = [
        Problem(setting.at(number, "path"), data.problem, Exit.DATA)
        for number, data in enumerate(facts.read_data(setting.value))
        if data.problem
    ]
    if lost:
        raise Refused(lost)
    return list(setting.value)


def _files(
    item: Mapping[str, Any], number: int, settings: Settings, environ: Mapping[str, str]
) -> list[str]:
    """Where the rows of a data set lie on this machine; those of the Hub are fetched."""
    name = settings.axolotl["datasets"].at(number, "path")
    found = datafiles.here(item, name)
    return datafiles.of_hub(item, name, settings.get, environ) if found is None else found


def _set(item: Mapping[str, Any], files: Sequence[str], settings: Settings) -> DataSet:
    untyped = not item.keys() & set(sets.SAYS)
    name = settings.axolotl["datasets"].name
    return sets.data_set(sets.of(item, files, untyped=untyped, named=name))


def _plain(settings: Settings) -> dict[str, Any]:
    return {key: setting.value for key, setting in settings.axolotl.items()}


def _asked(settings: Settings, files: Sequence[Sequence[str]]) -> dict[str, Any]:
    """All that decides the rows: settings, keys, and the data's content in place of its path."""
    given = {name: settings.get(name) for name in {**FILTERS, **MIXTURE}}
    own = {name: value for name, value in given.items() if value != OWN[name].default}
    keys = {key: value for key, value in _plain(settings).items() if key in _KEYS}
    read = [{k: v for k, v in item.items() if k not in sets.WHERE} for item in keys.pop("datasets")]
    digests = [
        [fingerprint.digest(Path(f), whole=True) for f in several if Path(f).exists()]
        for several in files
    ]
    splits = [item.get("split") for item in _items(settings)]
    text = json.dumps([read, digests, splits], sort_keys=True, default=str)
    return {"settings": {**keys, **own}, "data": hashlib.sha256(text.encode()).hexdigest()}


def _state(
    made: Prepared, asked: Mapping[str, Any], written: list[dict[str, Any]], settings: Settings
) -> dict[str, Any]:
    """training_state.json: no clock in it, so that the same rows are the same bytes."""
    rows: Counter[str] = Counter()
    dropped: Counter[str] = sum((one.dropped for one in made.counts), Counter())
    for file in written:
        rows[file["split"]] += file["rows"]
    return {
        "asked": dict(asked),
        "seed": made.wanted.seed,
        "response_template": _plain(settings).get("response_template"),
        "rows_read": sum(one.read for one in made.counts),
        "dropped": dict(dropped.most_common()),
        "splits": {name: {"conversations": rows[name]} for name in (TRAIN, HELD)},
        "data_sets": [one.plain() for one in made.counts],
        "files": written,
    }
