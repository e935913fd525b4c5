"""Packages that Axolotl's imports name and most trainings never use: imported at their first use.

What stands in their place knows the few names that the imports ask for. Any other name, a part
of the package, or a call of one of these brings the real one, which from then on answers for all:
nobody sees a difference but in time, and where a run uses W&B it is there as ever.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


def _called(package: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(_real(package), name)(*args, **kwargs)

    return call


# The package, and what is known of it before it is there. transformers and trl ask whether a run
# of W&B goes on, torch's partitioner annotates by the graph, transformers takes the measures of a
# benchmark and of assisted generation, evaluate what it draws again for an error bar.
PACKAGES: dict[str, dict[str, Any]] = {
    "wandb": {"run": None},
    **{
        package: {name: _called(package, name) for name in names}
        for package, names in {
            "networkx": ("DiGraph",),
            "sklearn.metrics": ("f1_score", "matthews_corrcoef", "roc_curve"),
            "scipy.stats": ("bootstrap", "pearsonr", "spearmanr"),
        }.items()
    },
}


class Later(ModuleType):
    """Stands for a package in `sys.modules`, and delegates to it once it is there."""

    def __getattr__(self, name: str) -> Any:
        known = PACKAGES[self.__name__]
        if name in known and sys.modules.get(self.__name__) is self:
            return known[name]
        return getattr(_real(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_real(self.__name__), name, value)

    def __dir__(self) -> list[str]:
        return dir(_real(self.__name__))


def _real(package: str) -> ModuleType:
    if isinstance(sys.modules.get(package), Later):
        sys.modules.pop(package, None)
    return importlib.import_module(package)


class _Parts:
    """Brings a package before its parts, as Python would have."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if not isinstance(sys.modules.get(parent), Later):
            return None
        package = _real(parent)
        if (part := sys.modules.get(name)) is not None:  # its package has imported it
            return ModuleSpec(name, _There(part))  # type: ignore[arg-type]  # it has what is asked
        return PathFinder.find_spec(name, package.__path__)


class _There:
    """The loader of what is loaded."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


def put_off() -> None:
    """Has each package imported at its first use, where it is installed and not there yet."""
    sys.meta_path.insert(0, _Parts)
    for package in PACKAGES:
        if package not in sys.modules and (spec := _spec(package)) is not None:
            stand_in = Later(package)
            vars(stand_in).update(__spec__=spec, __file__=spec.origin, __path__=[])
            sys.modules[package] = stand_in


def _spec(package: str) -> ModuleSpec | None:
    """Where a package is, found without importing what it is a part of."""
    top, *parts = package.split(".")
    found = find_spec(top)
    if found is None or found.origin is None or not parts:
        return found
    place = Path(found.origin).parent.joinpath(*parts)
    return spec_from_file_location(
        package, place / "__init__.py", submodule_search_locations=[str(place)]
    )
