"""Counts how the modules of envtune import each other, and what of that runs against the rooms.

The rooms and their order are the contract `rooms` in pyproject.toml. An import inside a function
counts like any other. A circle is a set of modules each of which needs all the others, a package
and its own modules among them, which no contract compares.
"""

import re
import sys
import tomllib
from pathlib import Path

import grimp

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def floors() -> dict[str, int]:
    """Room or module of the root -> how many layers lie below it."""
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "rooms")
    return {
        name: floor
        for floor, layer in enumerate(reversed(layers))
        for name in re.findall(r"\w+", layer)
    }


def imports(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """Who imports whom, sorted."""
    return sorted((m, n) for m in graph.modules for n in graph.find_modules_directly_imported_by(m))


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    needed = {module: graph.find_upstream_modules(module) for module in graph.modules}
    sets = {
        frozenset(other for other in needed[module] if module in needed[other]) | {module}
        for module in graph.modules
    }
    return sorted(sorted(circle) for circle in sets if len(circle) > 1)


def running_up(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A room that the layers do not name lies below them all."""
    floor = floors()

    def of(module: str) -> int:
        return floor.get(f"{module}.".split(".")[1], -1)

    return [(importer, imported) for importer, imported in found if of(importer) < of(imported)]


def main() -> int:
    graph = grimp.build_graph("envtune", cache_dir=None)
    found = imports(graph)
    round_, up = circles(graph), running_up(found)
    for circle in round_:
        print("in a circle:", ", ".join(circle))
    for importer, imported in up:
        print(f"runs up: {importer} -> {imported}")
    print(
        f"{len(graph.modules)} modules, {len(found)} imports of each other, "
        f"{len(round_)} circles, {len(up)} that run up"
    )
    return 1 if round_ or up else 0


if __name__ == "__main__":
    sys.exit(main())
