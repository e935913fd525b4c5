"""What follows a name: kustomize's own configuration, read off the objects.

kustomize renames what it knows to be a name. It knows no field of a custom resource, no
`subdomain`, and no label or annotation that holds a name; nor that a Job has selectors in its
affinity. It merges what a base says here into every overlay of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envtune.reference.kubernetes.pods import INSTANCE, RUN, SERVICE, Node

# Labels and annotations that hold the name of the run itself.
_OWN = (INSTANCE, RUN)
# The last keys of a path, and of which kind the name there is.
_HOLDS: Mapping[tuple[str, ...], str] = {
    ("configMapRef", "name"): "ConfigMap",
    ("configMap", "name"): "ConfigMap",
    ("secretRef", "name"): "Secret",
    ("credentials", "name"): "Secret",
    ("persistentVolumeClaim", "claimName"): "PersistentVolumeClaim",
    ("spec", "subdomain"): "Service",
    ("annotations", SERVICE): "Service",
    ("runtimeRef", "name"): "TrainingRuntime",
}
_LABELS = ("labels", "matchLabels")
_AFFINITY = ("affinity", "topologySpreadConstraints")

Path = tuple[str, ...]


def configuration(objects: Sequence[Node], runs: str | tuple[str, ...]) -> Node:
    """The configuration for these objects, whose pods have the name of the one of kind `runs`, or
    of whichever of several kinds is there."""
    owners = (runs,) if isinstance(runs, str) else runs
    found: dict[str, dict[tuple[str, str], None]] = {}
    for thing in objects:
        for path, _ in _leaves(thing):
            kinds = owners if path[-1] in _OWN else (_HOLDS.get(path[-2:]),)
            for kind in filter(None, kinds):
                found.setdefault(kind, {})[thing["kind"], _written(path)] = None
    references = [
        {"kind": kind, "fieldSpecs": [_field(*where) for where in fields]}
        for kind, fields in found.items()
    ]
    labels = [_field(*where) for where in dict.fromkeys(_selecting(objects))]
    return {"nameReference": references, **({"commonLabels": labels} if labels else {})}


def _field(kind: str, path: str) -> Node:
    return {"kind": kind, "path": path}


def _selecting(objects: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """The labels of pods that kustomize does not find: it has the places of its own kinds."""
    for thing in objects:
        custom = "." in thing["apiVersion"].removesuffix(".k8s.io/v1")
        for path, _ in _leaves(thing):
            ours = path[-1] == INSTANCE and path[0] == "spec" and path[-2] in _LABELS
            if ours and (custom or any(key in path for key in _AFFINITY)):
                yield thing["kind"], _written(path[:-1])


def _leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value with the keys that lead to it; a list has none, as in kustomize's paths."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(node, list):
        for item in node:
            yield from _leaves(item, path)
    else:
        yield path, node


def _written(path: Path) -> str:
    return "/".join(key.replace("/", "\\/") for key in path)
