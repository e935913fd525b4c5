"""The verbs that work on data alone."""

import argparse
import logging
import os
from pathlib import Path

from envtune.cli.termination import Result
from envtune.errors import Exit, Problem, Refused, of_file

LOG = logging.getLogger("envtune")


def prepare(args: argparse.Namespace) -> Result:
    """filter, split and weigh the rows of the data sets, and keep them in SFT_PREPARED_DIR"""
    from envtune.cli import target
    from envtune.settings import sources
    from envtune.stages import corpus

    inputs = sources.read(args.overrides)
    settings = target.settings_of(inputs)
    for note in settings.notes:
        LOG.info("%s", note)
    if settings.problems:
        raise Refused(settings.problems)
    return Exit.DONE, corpus.prepare(settings, inputs.environ, force=args.force, dry=args.dry_run)


def convert(args: argparse.Namespace) -> Result:
    """write a file of rows as JSON lines: messages, or prompt and completion"""
    from envtune.data import conversion, folder, formats
    from envtune.data.batches import BadRow
    from envtune.resolve.facts import file_type
    from envtune.settings.paths import absolute

    source, made, rows = absolute(args.source), Path(args.made), 0
    if os.path.lexists(made):
        raise Refused([Problem(str(made), "is there already; remove it, or name another file")])
    aside = made.with_name(f".{made.name}.part")
    try:
        with aside.open("wb") as stream:
            for row in conversion.converted(formats.batches(source, file_type(source))):
                stream.write(folder.line(row))
                rows += 1
            stream.flush()
            os.fsync(stream.fileno())
        if not rows:
            raise Refused([Problem(source, "holds no row", Exit.DATA)])
        aside.replace(made)
    except BadRow as bad:
        raise Refused([Problem("", str(bad), Exit.DATA)]) from None
    except OSError as error:
        exit_, told = of_file(error)
        raise Refused([Problem("", told, exit_)]) from None
    finally:
        aside.unlink(missing_ok=True)
    return Exit.DONE, f"wrote {rows:,} rows to {made}"
