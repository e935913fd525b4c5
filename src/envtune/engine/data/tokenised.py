"""Prepares a run's rows: ids and labels on disk, as Axolotl would make them, and figures of them.

What is not known to be the same as Axolotl's is Axolotl's: Beyond is raised with the reason.
"""

import contextlib
import datetime
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envtune import files
from envtune.data.batches import Tell, refuse
from envtune.engine.data import figures, order, shards, store, tokenizer
from envtune.engine.data.backend import Backend, Differs
from envtune.engine.data.making import Crew, Maker, Way
from envtune.engine.data.on_ray import OnRay
from envtune.engine.data.processes import Processes
from envtune.engine.data.spill import Rows, Spill
from envtune.engine.data.tokenizer import Loaded
from envtune.engine.data.types import templates
from envtune.engine.data.types.made import Beyond
from envtune.errors import Exit, Problem, Refused

# The rows of one data set, from the beginning each time: batches with the keys by which they read.
Read = Callable[[], Iterator[Way]]
# Objects between two looks for circles.
_OBJECTS = 200_000
TRAIN, TEST = "train", "test"
# Keys with which Axolotl reads, merges or hands rows on in a way of its own.
_BEYOND = (
    "rl", "streaming", "pretraining_dataset", "reward_model", "process_reward_model", "use_pose",
    "dataset_shard_num", "skip_prepare_dataset", "kd_trainer", "push_dataset_to_hub",
)  # fmt: skip
_BEYOND_ITEM = ("shards", "preprocess_shards")
# Keys that decide which rows there are and what they hold.
_KEYS = (
    "sequence_len", "eval_sequence_len", "min_sample_len", "excess_length_strategy", "seed",
    "shuffle_merged_datasets", "shuffle_before_merging_datasets", "curriculum_sampling",
    "val_set_size", "sample_packing", "eval_sample_packing", "dataset_exact_deduplication",
    "train_on_inputs", "eot_tokens", "chat_template", "chat_template_jinja",
    "chat_template_kwargs", "default_system_message", "base_model", "tokenizer_config",
    "response_template", "instruction_template",
)  # fmt: skip
# Of a data set: where its rows lie, which says nothing of what they hold.
_PLACES = ("path", "data_files", "name", "ds_type", "split", "revision", "trust_remote_code")


def beyond(config: Mapping[str, Any]) -> str | None:
    """Why Axolotl has to prepare a run's rows, as far as its configuration tells, or None."""
    if reason := tokenizer.unknown(config):
        return reason
    if found := next((key for key in _BEYOND if config.get(key)), None):
        return f"{found} is set"
    if config.get("seed") is None and config.get("shuffle_merged_datasets", True):
        return "no seed is set"
    items = [*(config.get("datasets") or ()), *(config.get("test_datasets") or ())]
    found = next((key for item in items for key in _BEYOND_ITEM if item.get(key)), None)
    return f"{found} is set" if found else None


@dataclass(frozen=True)
class Wanted:
    """What is to be prepared: the rows of each data set of `train`, and of `test` if there is one.

    `config`: what was rendered for Axolotl; `tokenizer`: its folder. `content`: a digest of what
    `rows` hold, by which what was prepared before is found again and nothing is read. `caches`:
    where what was loaded of a tokenizer is kept. `slow`: why fastokens may not make the ids.
    `ray`: the cluster that makes them, "" being one of this machine's; None: processes make them,
    the configuration's dataset_num_proc of them, else by `cores`. `seen`: what the manifest
    is to say of the rows once all are read.
    """

    config: Mapping[str, Any]
    tokenizer: Path
    rows: Mapping[str, Sequence[Read]]
    content: str = ""
    caches: Path | None = None
    slow: str | None = None
    ray: str | None = None
    cores: int = 1
    seen: Callable[[], Mapping[str, Any]] = dict


def prepare(wanted: Wanted, out: Path, tell: Tell = refuse) -> dict[str, Any]:
    """Prepares rows in a folder of their own in `out`. `tell`: told of each row that cannot be
    trained on, which is left out if it returns.

    Returns `folder`, `hit`, `because` and `manifest`. Raises BadRow, Beyond, Refused, OSError.
    """
    given = {key: value for key, value in wanted.config.items() if value is not None}
    wanted = replace(wanted, config={"sequence_len": order.LENGTH, **given})
    if reason := beyond(wanted.config):
        raise Beyond(reason)
    loaded = _loaded(wanted)
    key = _key(wanted, loaded)
    found, because = None, "nothing tells what the rows hold"
    with store.alone(out, key):
        if wanted.content:
            found, because = store.find(out, key)
        manifest = found or _fresh(wanted, loaded, out, key, tell)
    folder = str(out / store.name(key))
    return {"folder": folder, "hit": bool(found), "because": because, "manifest": manifest}


def _loaded(wanted: Wanted) -> Loaded:
    try:
        loaded = tokenizer.load(wanted.tokenizer, wanted.config, wanted.caches)
    except (ValueError, ImportError) as error:  # Axolotl may have more to load it with
        raise Beyond(f"the tokenizer is not loaded: {str(error).splitlines()[0]}") from error
    if loaded is None:
        raise Beyond("the tokenizer has no fast form")
    return loaded


def _key(wanted: Wanted, loaded: Loaded) -> dict[str, Any]:
    """What decides the files, by the name that a person is told when it is another one."""
    config = wanted.config
    items = [*(config.get("datasets") or ()), *(config.get("test_datasets") or ())]
    reading = [{k: v for k, v in item.items() if k not in _PLACES} for item in items]
    # A row that says itself how it reads may be a chat in any data set.
    texts = [templates.source(item, config, loaded) or loaded.chat_template or "" for item in items]
    dated = any("strftime_now" in text for text in texts)
    return {
        "rows": wanted.content,
        "tokenizer": loaded.sha256,
        "how rows read": reading,
        "chat templates": texts,
        "today's date, which the template writes": str(datetime.date.today()) if dated else "",
        "envtune": store.code(),
        **figures.settings(config, _KEYS),
    }


def _fresh(
    wanted: Wanted, loaded: Loaded, out: Path, key: Mapping[str, Any], tell: Tell
) -> dict[str, Any]:
    with store.writing(out, key) as aside, _few_collections():
        try:
            made = _all(wanted, Backend(loaded, wanted.slow), aside, tell)
        except Differs:  # what was told of bad rows is told again
            store.empty(aside)
            slow = "fastokens made other ids of a row than tokenizers"
            made = _all(wanted, Backend(loaded, slow), aside, tell)
        manifest = {
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "tokenizer": {"sha256": loaded.sha256, "vocab_size": loaded.vocab_size},
            **made,
            "left_out": {},
            "idle": [],
            **wanted.seen(),
            "configuration": figures.settings(wanted.config, (*_KEYS, "datasets", "test_datasets")),
        }
        files.write_json(aside / store.MANIFEST, manifest)
    return manifest


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Batches of rows are thousands of objects without a circle: looking for some at every 700
    took an eighth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _all(wanted: Wanted, backend: Backend, folder: Path, tell: Tell) -> dict[str, Any]:
    """All rows by one backend. Raises Differs where it is not the one to make them."""
    maker = Maker(wanted.config, backend)
    with contextlib.closing(_crew(wanted, maker)) as crew:
        made = _Preparing(wanted.config, crew, folder, tell).all(wanted.rows)
    return {**made, "slow": maker.slow()}


def _crew(wanted: Wanted, maker: Maker) -> Crew:
    if wanted.ray is not None:
        return OnRay(maker, wanted.ray or None, wanted.cores)
    return Processes(maker, wanted.config.get("dataset_num_proc"), wanted.cores)


class _Preparing:
    """One preparation: rows in, a folder a split and their figures out."""

    def __init__(self, config: Mapping[str, Any], crew: Crew, folder: Path, tell: Tell) -> None:
        self.config, self.crew, self.folder, self.tell = config, crew, folder, tell
        self.mark = folder.name.strip(".")[:16]
        self.shortest = int(config.get("min_sample_len") or order.SHORTEST)
        self.cut = str(config.get("excess_length_strategy") or "").lower() == "truncate"

    def all(self, rows: Mapping[str, Sequence[Read]]) -> dict[str, Any]:
        splits, dropped = {}, {}
        packed = bool(self.config.get("sample_packing"))
        held = float(self.config.get("val_set_size") or 0)
        found, taken, limit = self._taken(TRAIN, rows[TRAIN], packed=packed)
        dropped[TRAIN] = figures.lost(found, self.shortest, limit, cut=self.cut)
        if held:
            taken, tests = order.split(taken, held)
            splits["eval"] = self._write("eval", found, tests, limit, packed=packed)
        splits[TRAIN] = self._write(TRAIN, found, taken, limit, packed=packed)
        if TEST in rows:
            packed = bool(self.config.get("eval_sample_packing", packed) and packed)
            found, taken, limit = self._taken(TEST, rows[TEST], packed=packed)
            dropped[TEST] = figures.lost(found, self.shortest, limit, cut=self.cut)
            splits["eval"] = self._write("eval", found, taken, limit, packed=packed)
        return {"splits": splits, "dropped": dropped}

    def _taken(self, split: str, reads: Sequence[Read], *, packed: bool) -> tuple[Rows, Any, int]:
        """All rows of a split, and those that are trained on in their order."""
        limit = int(self.config["sequence_len"])
        if split == TEST and self.config.get("eval_sequence_len"):
            limit = int(self.config["eval_sequence_len"])
        spill = Spill(self.folder, self.shortest, limit, cut=self.cut)
        counts = [self._read(read, spill) for read in reads]
        rows = spill.close()
        merged = order.shuffled(counts, self.config)
        taken = order.taken(rows, merged, self.shortest, limit, self.config)
        if packed:
            taken = order.learned_from(rows, taken)
        if self.config.get("dataset_exact_deduplication"):
            taken = order.unique(rows, taken)
        self._refuse_none(split, rows, taken, limit)
        return rows, taken, limit

    def _read(self, read: Read, spill: Spill) -> int:
        """Writes a data set's rows to the spill. Returns how many there are."""
        count = 0
        for done in self.crew.made(read()):
            for bad in done.bad:
                self.tell(bad)
            spill.add(done.made)
            count += len(done.made.splits) - 1
        return count

    def _refuse_none(self, split: str, rows: Rows, taken: Any, limit: int) -> None:
        if (rows.table["trained"][taken] > 0).any() or (split == TEST and len(taken)):
            return
        long = int((rows.table["size"] > limit).sum())
        what = f"none of {len(rows.table)} rows is left to learn from"
        way = "raise it, or set AXOLOTL_EXCESS_LENGTH_STRATEGY=truncate"
        why = f"{long} have more than the {limit} tokens of AXOLOTL_SEQUENCE_LEN; {way}"
        why = why if long else "no token of them is trained, as of rows without an answer"
        raise Refused([Problem("", f"{what}: {why}", Exit.DATA)])

    def _write(
        self, name: str, rows: Rows, taken: Any, limit: int, *, packed: bool
    ) -> dict[str, Any]:
        written = shards.write(self.folder / name, rows, taken, self.mark, packed=packed)
        return figures.of_split(rows, taken, written, limit)
