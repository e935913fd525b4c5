"""What a person sees of the rows as they are trained: a few lines in the log, and a page."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envtune import files
from envtune.render.yaml_files import TEMPLATES
from envtune.runs.contents import SAMPLE, SAMPLE_PAGE
from envtune.supervise.stage import LOG, Context

Piece = Sequence[Any]  # its text, and whether it is learned
# Characters of a row in the log; the page has all of it.
_LONGEST = 600
_GREEN, _PLAIN = "\x1b[32m", "\x1b[0m"
_MARKS = ("«", "»")


def tell(context: Context) -> None:
    """Logs the counts and one row with its mask, and writes the page of all that are shown."""
    found = files.read_json(context.run.folder / SAMPLE)
    LOG.info("train: %s", counted(found["counts"]))
    for line in warnings(found["counts"]):
        LOG.warning("train: %s", line)
    colour = sys.stderr is not None and sys.stderr.isatty()
    shown = context.clean(text(found["samples"][0], colour=colour))
    how = "in green" if colour else f"between {_MARKS[0]} and {_MARKS[1]}"
    LOG.info("train: a row as it is trained, what is learned %s:\n%s", how, shown)
    files.write_text(context.run.folder / SAMPLE_PAGE, page(found, context.run.name))


def counted(counts: Mapping[str, Any]) -> str:
    """The counts on one line."""
    share = counts["learned"] / max(1, counts["tokens"])
    return (
        f"{counts['rows']:,} rows of {counts['tokens']:,} tokens, the longest of "
        f"{counts['longest']:,}; {counts['learned']:,} tokens are learned ({share:.0%})"
    )


def warnings(counts: Mapping[str, Any]) -> Iterator[str]:
    """What of the counts costs an answer or a night."""
    rows, ends = counts["rows"], " or ".join(map(repr, counts["ends"]))
    if counts["unlearned"]:
        yield f"nothing is learned from {counts['unlearned']:,} of {rows:,} rows"
    if counts["endless"]:
        with_ = rows - counts["unlearned"]
        what = f"{counts['endless']:,} of {with_:,} rows learn no end of a turn ({ends})"
        yield f"{what}: after such rows the model does not stop"


def text(pieces: Sequence[Piece], *, colour: bool) -> str:
    """A row for a terminal or a log, with what is learned told from the rest."""
    begin, end = (_GREEN, _PLAIN) if colour else _MARKS
    made, left = [], _LONGEST
    for piece, learned in pieces:
        part = _printable(piece[:left])
        made.append(f"{begin}{part}{end}" if learned else part)
        left -= len(part)
        if left <= 0:
            made.append(" ...")
            break
    return "".join(made)


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def page(found: Mapping[str, Any], run: str) -> str:
    """The rows as a page of HTML."""
    import jinja2

    template = (TEMPLATES / "sample.html.j2").read_text()
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        run=run,
        samples=found["samples"],
        counted=counted(found["counts"]),
        warnings=list(warnings(found["counts"])),
    )
