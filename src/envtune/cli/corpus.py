"""The verbs that work on data alone."""

import argparse
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from envtune import files
from envtune.cli.termination import Result
from envtune.errors import Exit, Problem, Refused, of_file

if TYPE_CHECKING:
    from envtune.data.batches import Batch
    from envtune.data.sets import Source
    from envtune.resolve.config import RunConfig

LOG = logging.getLogger("envtune")


def prepare(args: argparse.Namespace) -> Result:
    """filter, split and weigh the rows of the data sets, and keep them in SFT_PREPARED_DIR"""
    from envtune.checks import preparation
    from envtune.cli import target
    from envtune.settings import sources
    from envtune.stages import corpus
    from envtune.transfer import remote

    inputs = sources.read(args.overrides)
    settings = target.settings_of(inputs)
    for note in settings.notes:
        LOG.info("%s", note)
    told = (*settings.problems, *preparation.problems(settings), *remote.problems(settings))
    if told:
        raise Refused(told)
    settings = remote.located(settings, inputs.environ, fetch=True)
    return Exit.DONE, corpus.prepare(settings, inputs.environ, force=args.force, dry=args.dry_run)


def convert(args: argparse.Namespace) -> Result:
    """write rows of a file, a URL or the Hub as JSON lines: messages, or prompt and completion"""
    from envtune.data import conversion, folder
    from envtune.data.batches import BadRow

    made, rows = Path(args.made), 0
    if os.path.lexists(made):
        raise Refused([Problem(str(made), "is there already; remove it, or name another file")])
    aside = made.with_name(f".{made.name}.part")
    try:
        with aside.open("wb") as stream:
            for row in conversion.converted(_batches(args.source, args.split)):
                stream.write(folder.line(row))
                rows += 1
            stream.flush()
            os.fsync(stream.fileno())
        if not rows:
            raise Refused([Problem(args.source, "holds no row", Exit.DATA)])
        aside.replace(made)
    except BadRow as bad:
        raise Refused([Problem("", str(bad), Exit.DATA)]) from None
    except OSError as error:
        files.name_room(error, made)
        exit_, told = of_file(error)
        raise Refused([Problem("", told, exit_)]) from None
    finally:
        aside.unlink(missing_ok=True)
    return Exit.DONE, f"wrote {rows:,} rows to {made}"


def _batches(source: str, split: str) -> "Iterator[Batch]":
    """The rows of a file, here or fetched, or of a split of the Hub's repository of that name."""
    from envtune.data.reading import formats
    from envtune.resolve import facts
    from envtune.settings import paths, sources
    from envtune.transfer import addresses, datafiles
    from envtune.transfer.repositories import Repository

    if addresses.scheme(source):
        files = [Path(_fetched(source))]
    elif paths.is_local(source):
        files = [Path(paths.absolute(source))]
    else:
        repository = Repository(source, "dataset", source)
        files = datafiles.fetched(repository, split, "", sources.read().environ, local_only=False)
    for data in facts.read_data([{"path": str(file)} for file in files]):
        if data.problem:
            raise Refused([Problem("", data.problem, Exit.DATA)])
    for file in files:
        yield from formats.batches(str(file))


def validate(args: argparse.Namespace) -> Result:
    """read every row of files, or of a run's data sets, and name the first that are wrong"""
    from envtune.data.batches import BadRow
    from envtune.data.verdicts import Verdict

    verdict = Verdict(most=args.errors)
    try:
        for source in _sources(args.files):
            verdict.look(source)
    except BadRow as bad:
        verdict.tell(bad)
    except OSError as error:
        exit_, told = of_file(error)
        raise Refused([Problem("", told, Exit.DATA if exit_ == Exit.CONFIG else exit_)]) from None
    for line in verdict.notes():
        LOG.info("%s", line)
    if verdict.wrong:
        raise Refused(Problem("", line, Exit.DATA) for line in verdict.lines())
    if sum(verdict.idle.values()) == verdict.rows:
        what = "nothing is learned from any row" if verdict.rows else "there is no row"
        raise Refused([Problem("", what, Exit.DATA)])
    return Exit.DONE, f"{verdict.rows:,} rows: {verdict.told()}"


def _sources(named: list[str]) -> "Iterator[Source]":
    """The data sets of files, or of a run's folder. Raises OSError, Refused."""
    from envtune.data import sets
    from envtune.data.reading import formats
    from envtune.runs import folders, record
    from envtune.settings.paths import absolute
    from envtune.transfer import addresses

    for path in (_fetched(one) if addresses.scheme(one) else absolute(one) for one in named):
        if (folder := Path(path) / "config" / "resolved.json").exists():
            yield from _of_run(record.load_resolved(folders.open_run(folder.parents[1])))
        else:
            yield sets.of({"path": path}, formats.members(path), untyped=True)


def _fetched(url: str) -> str:
    """Where the rows of an address lie on this machine, fetched. Raises Refused."""
    from envtune.cli import target
    from envtune.settings import sources
    from envtune.transfer import addresses, remote

    inputs, item = sources.read(), {"path": url}
    if wrong := [Problem("", what) for _, what in addresses.refusals(item)]:
        raise Refused(wrong)
    setting = target.settings_of(inputs).get
    return str(remote.item_here(item, "", setting, inputs.environ, fetch=True)["path"])


def _of_run(config: "RunConfig") -> "Iterator[Source]":
    from envtune.data import sets
    from envtune.data.reading import formats

    for key, untyped in {"datasets": (), "test_datasets": (), **config.untyped}.items():
        for number, item in enumerate(config.plain().get(key) or ()):
            if not str(item.get("path")).startswith("/"):
                LOG.info("%s is not on this machine; Axolotl reads it", item.get("path"))
                continue
            yield sets.of(item, formats.members(item["path"]), untyped=number in untyped)
