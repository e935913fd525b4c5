"""Prepares a run's rows before torch is imported: python -m envtune.engine.data.prepare ORDER.json

The order names `config` (what was rendered for Axolotl), `tokenizer` (its folder), `sets` (train
and test: of each data set its `item`, `files` and whether it is `untyped`), `settings` (those of
the preparation), `ray` and `cores` (as of tokenised.Wanted), `drops`, `content` (a digest of the
files), `caches`, `out` and `result`.

Every row is looked at. Where ids and labels as Axolotl makes them are known, they are made here;
where not, Axolotl reads the same files, and the result says why.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from envtune import files
from envtune.data import folder, sets, soundness
from envtune.data.batches import BadRow, Batch, refuse
from envtune.data.taken import counts, preparation, wishes
from envtune.data.taken.counts import Counts
from envtune.data.taken.split import HELD, TRAIN
from envtune.data.taken.wishes import Wanted
from envtune.data.verdicts import Verdict
from envtune.engine.data import handover, tokenised
from envtune.engine.data.progress import Progress
from envtune.engine.data.tokenised import TEST
from envtune.engine.data.types.made import Beyond
from envtune.errors import Exit, Problem, Refused, of_file

# In the run folder: the rows of each side, where they are to be kept.
_SPLITS = "data/splits"
Read = Iterator[tuple[Mapping[str, Any], Batch]]


@dataclass
class _Left:
    """The rows that were left out, each once although rows may be read twice."""

    drops: bool
    reasons: dict[str, str] = field(default_factory=dict)

    def tell(self, bad: BadRow) -> None:
        if not self.drops:
            refuse(bad)
        self.reasons[bad.where] = bad.reason


class Preparing:
    """One order."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.order, self.config = order, order["config"]
        self.left = _Left(order["drops"])
        self.counts: list[Counts] = []
        self.idle: dict[int, dict[str, tuple[int, str]]] = {}
        setting = order["settings"].get
        self.wanted = wishes.wanted(setting, self.config, drops=order["drops"])
        self.asked = order["asked"]
        self.sources = {
            split: [sets.of(s["item"], s["files"], untyped=s["untyped"]) for s in several]
            for split, several in order["sets"].items()
        }

    def result(self) -> dict[str, Any]:
        """What was made, or why Axolotl makes it. Raises Refused."""
        try:
            if reason := self.order["beyond"]:
                raise Beyond(reason)  # noqa: TRY301  # one way for all reasons
            made = tokenised.prepare(self._order(), Path(self.order["out"]), self.left.tell)
        except BadRow as bad:
            raise self._refused(bad) from None
        except Beyond as beyond:
            return self._for_axolotl(str(beyond))
        dropped = made["manifest"]["left_out"]
        told = list(counts.lines(self.counts)) if self.asked else []
        mixed = any(one.untyped for several in self.sources.values() for one in several)
        made |= {"required": self.asked or bool(dropped) or mixed}
        if self.order["save"]:
            self._save(Path(self.order["run"]) / _SPLITS)
        handover.say(Path(self.order["run"]), made)
        return {**made, "dropped": dropped, "lines": told, "idle": made["manifest"]["idle"]}

    def _seen(self) -> dict[str, Any]:
        """What the manifest is to say of the rows as they were read."""
        several = (pair for reasons in self.idle.values() for pair in reasons.items())
        lines = [
            f"nothing is learned from {n:,} rows: {why}, the first at {where}"
            for why, (n, where) in several
        ]
        return {"left_out": dict(Counter(self.left.reasons.values())), "idle": lines}

    def _looked(self, number: int, read: Callable[[], Read]) -> Read:
        """The rows as they are; of which nothing is learned is counted, anew where they are read
        twice."""
        found = self.idle[number] = {}
        for keys, batch in read():
            idle = soundness.idler(keys)
            looked_at = () if soundness.all_teach(batch, keys) else batch.rows
            for index, row in enumerate(looked_at):
                if why := idle(row):
                    count, first = found.get(why, (0, batch.where(index)))
                    found[why] = (count + 1, first)
            yield keys, batch

    def _save(self, where: Path) -> None:
        """Keeps the rows of each side of the split as they were read."""
        several = [sets.data_set(one, self.left.tell) for one in self.sources[TRAIN]]
        with folder.working(where):
            written = folder.write(where, preparation.prepared(several, self.wanted))
            told = {"files": [file.plain() for file in written]}
            folder.finish(where, written, told, "The rows of each side of the split, as read.\n")

    def _order(self) -> tokenised.Wanted:
        config, rows = dict(self.config), {}
        if self.asked:
            wanted = replace(self.wanted, held=0 if TEST in self.sources else self.wanted.held)
            rows[TRAIN] = [partial(self._taken, wanted, TRAIN)]
            if wanted.held:
                rows[TEST] = [partial(self._taken, wanted, HELD)]
            config |= {"val_set_size": 0, "dataset_exact_deduplication": None}
        else:
            rows[TRAIN] = [partial(self._read, one) for one in self.sources[TRAIN]]
        rows[TRAIN] = [partial(self._looked, n, read) for n, read in enumerate(rows[TRAIN])]
        if TEST in self.sources:
            rows[TEST] = [partial(self._read, one) for one in self.sources[TEST]]
        return tokenised.Wanted(
            config=config,
            tokenizer=Path(self.order["tokenizer"]),
            rows=rows,
            content=self._content(),
            caches=Path(self.order["caches"]),
            ray=self.order["ray"],
            cores=self.order["cores"],
            seen=self._seen,
        )

    def _taken(self, wanted: Wanted, split: str) -> Read:
        """The rows of one side; what became of them is counted once."""
        several = [sets.data_set(one, self.left.tell) for one in self.sources[TRAIN]]
        found = preparation.of_split(several, wanted, split, self._counted)
        yield from Progress(self._files(self.sources[TRAIN])).watched(found)

    def _read(self, source: sets.Source) -> Read:
        """All rows of a data set that can be trained on."""
        yield from Progress(source.files).watched(sets.read(source, self.left.tell))

    @staticmethod
    def _files(sources: Sequence[sets.Source]) -> list[str]:
        return [file for one in sources for file in one.files]

    def _counted(self, found: list[Counts]) -> None:
        self.counts = found

    def _content(self) -> str:
        """A digest of all that decides which rows there are, beside the configuration."""
        several = {s: [[x.item, x.untyped, x.most] for x in v] for s, v in self.sources.items()}
        decisive = [self.order["content"], self.order["drops"], self.asked, several]
        asked = self.order["settings"] if self.asked else {}
        held = [self.wanted.held, self.wanted.unique, self.wanted.seed] if self.asked else []
        text = json.dumps([decisive, asked, held], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _refused(self, first: BadRow) -> Refused:
        """All that is wrong with the rows, the first ones by their places."""
        verdict = self._verdict()
        lines = list(verdict.lines()) or [str(first)]
        lines[-1] += "; SFT_BAD_ROWS=drop leaves such rows out and counts them"
        return Refused(Problem("", line, Exit.DATA) for line in lines)

    def _verdict(self) -> Verdict:
        verdict = Verdict()
        for source in (one for several in self.sources.values() for one in several):
            verdict.look(source)
        return verdict

    def _for_axolotl(self, reason: str) -> dict[str, Any]:
        """Looks at the rows that Axolotl will read. Raises Refused for what only a preparation
        here could do."""
        verdict = self._verdict()
        if verdict.wrong and not self.left.drops:
            raise self._refused(verdict.bad[0])
        needs = [
            (verdict.wrong, "leave out the rows that cannot be trained on (SFT_BAD_ROWS=drop)"),
            (self.asked, "filter, weigh or split the rows"),
            (verdict.mixed, f"train each row by its own shape ({verdict.told()})"),
        ]
        for needed, what in needs:
            if needed:
                line = f"Axolotl has to prepare these rows ({reason}) and cannot {what}"
                raise Refused([Problem("", line, Exit.DATA)])
        return {"beyond": reason, "lines": list(verdict.notes())}


def _carry_out(order: Mapping[str, Any]) -> None:
    """What one order comes to, written. Raises Refused, also where a file cannot be written or
    read."""
    try:
        result = Preparing(order).result()
        files.write_json(Path(order["result"]), result)
    except OSError as error:
        files.name_room(error, Path(order["out"]))
        exit_, told = of_file(error)
        raise Refused([Problem("", told, exit_)]) from None


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text())
    try:
        _carry_out(order)
    except Refused as refusal:
        for problem in refusal.problems:
            print(f"prepare: refused: {problem}", file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk, which was told above
            files.write_json(Path(order["result"]), {"refused": [str(p) for p in refusal.problems]})
        sys.exit(refusal.exit)


if __name__ == "__main__":
    main()
