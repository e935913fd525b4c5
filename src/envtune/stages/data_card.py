"""What people read of prepared data: DATA_CARD.md and the lines of the log. Pure text."""

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2

from envtune.render.yaml_files import TEMPLATES


def text(state: Mapping[str, Any]) -> str:
    """The card, from what training_state.json says. Nothing in it can end a line or a cell."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    dropped = list(_dropped(state["data_sets"]))
    return environment.get_template("data_card.md.j2").render(**state, dropped_rows=dropped)


def _dropped(sets: list[Mapping[str, Any]]) -> Iterator[tuple[str, str, int, str]]:
    for one in sets:
        for reason, rows in one["dropped"].items():
            yield one["name"], reason, rows, ", ".join(one["first_dropped"][reason])


def _cell(value: Any) -> str:
    """A value in a cell of a table, as code that nothing in it ends."""
    shown = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{shown}`" if shown else ""
