"""Judges of a Kubernetes object as strict as the API server: an unknown field is an error.

Core objects have Kubernetes' own schemas. Kubeflow's and JobSet's come as generated Python:
Trainer's models drop what they do not know, so what comes out is compared with what went in; the
training operator's models need a client to be imported, so their tables are read from their
source. Of Prometheus' operator there is none: what its documentation says of a PodMonitor's fields
is written down here.
"""

import ast
import copy
import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
from kubeflow_trainer_api import models

# From the first Kubernetes whose Jobs have a stable podFailurePolicy.
VERSIONS = ("1.31", "1.37")


class Unfit(Exception):
    """Raised with what an API server would say."""


def judge(thing: Mapping[str, Any], version: str = VERSIONS[-1]) -> None:
    """Raises Unfit where the object would not be taken as it is."""
    group = thing["apiVersion"].split("/")[0]
    if group == "monitoring.coreos.com":
        _monitor(thing, _POD_MONITOR, thing["kind"])
        return
    if group in _MODELS:
        _modelled(thing, f"{_MODELS[group]}{thing['kind']}")
    elif group == "kubeflow.org":
        _operator(thing, f"KubeflowOrgV1{thing['kind']}", thing["kind"])
    else:
        _core(thing, version)
        return
    core = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": thing["metadata"]}
    for template in templates(thing):
        _core({**core, "template": template}, version)


def templates(node: Any) -> list[dict[str, Any]]:
    """Every pod template in an object."""
    if isinstance(node, list):
        return [found for item in node for found in templates(item)]
    if not isinstance(node, dict):
        return []
    if "containers" in node.get("spec", {}) and "kind" not in node:
        return [node]
    return [found for value in node.values() for found in templates(value)]


def _core(thing: Mapping[str, Any], version: str) -> None:
    try:
        kubernetes_validate.validate(dict(thing), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(map(str, error.path))
        raise Unfit(f"{thing['kind']} {where}: {error.message}") from None


_MODELS = {"trainer.kubeflow.org": "TrainerV1alpha1", "jobset.x-k8s.io": "JobsetV1alpha2"}


def _modelled(thing: Mapping[str, Any], name: str) -> None:
    model = getattr(models, name)
    try:
        kept = model.from_dict(copy.deepcopy(dict(thing))).to_dict()
    except ValueError as error:
        raise Unfit(str(error)) from None
    if kept != thing:
        raise Unfit(f"{thing['kind']}: {_first_difference(thing, kept)}")


def _first_difference(given: Any, kept: Any, path: str = "") -> str:
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        for key in given:
            if given[key] != kept.get(key):
                return _first_difference(given[key], kept.get(key), f"{path}.{key}")
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for i, (one, other) in enumerate(zip(given, kept, strict=True)):
            if one != other:
                return _first_difference(one, other, f"{path}.{i}")
    return f"{path}: {given!r} becomes {kept!r}"


# A field of monitoring.coreos.com/v1, and what is in it; a list has the fields of its entries.
_LABELLED = {"*": str}
_POD_MONITOR = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "namespace": str, "labels": _LABELLED, "annotations": _LABELLED},
    "spec": {
        "selector": {"matchLabels": _LABELLED},
        "podTargetLabels": str,
        "podMetricsEndpoints": {
            "port": str,
            "path": str,
            "interval": str,
            "authorization": {"type": str, "credentials": {"name": str, "key": str}},
        },
    },
}


def _monitor(value: Any, fields: Any, path: str) -> None:
    if isinstance(value, list):
        for item in value:
            _monitor(item, fields, path)
    elif isinstance(fields, dict) and isinstance(value, dict):
        for key, inner in value.items():
            if key not in fields and "*" not in fields:
                raise Unfit(f"{path}: unknown {key}")
            _monitor(inner, fields.get(key, fields.get("*")), f"{path}.{key}")
    elif not (isinstance(fields, type) and isinstance(value, fields)):
        raise Unfit(f"{path}: {value!r} is not allowed")


def _tables() -> dict[str, dict[str, str]]:
    """Each class of the operator's models: a field's name in JSON, and its type."""
    found = {}
    for file in importlib.metadata.files("kubeflow-training") or ():
        if file.parent.name != "models" or file.name == "__init__.py":
            continue
        tree = ast.parse(Path(str(file.locate())).read_text())
        for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            maps = {
                node.targets[0].id: ast.literal_eval(node.value)
                for node in cls.body
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            }
            names = maps["attribute_map"]
            found[cls.name] = {names[key]: kind for key, kind in maps["openapi_types"].items()}
    return found


_OPERATOR = _tables()
_PLAIN = {"str": str, "int": int, "bool": bool}


def _operator(value: Any, kind: str, path: str) -> None:
    if kind.startswith("dict(str, "):
        for key, inner in value.items():
            _operator(inner, kind[len("dict(str, ") : -1], f"{path}.{key}")
    elif kind in _PLAIN and type(value) is not _PLAIN[kind]:
        raise Unfit(f"{path}: {value!r} is no {kind}")
    elif kind in _OPERATOR:
        if not isinstance(value, dict):
            raise Unfit(f"{path}: {value!r} is no {kind}")
        if unknown := value.keys() - _OPERATOR[kind].keys():
            raise Unfit(f"{path}: unknown {sorted(unknown)}")
        for key, inner in value.items():
            _operator(inner, _OPERATOR[kind][key], f"{path}.{key}")


def expanded(pod: Mapping[str, Any], **fields: str) -> dict[str, str]:
    """The variables of a pod's container as the kubelet makes them; `fields` are what it knows of
    the pod besides its labels and annotations."""
    found: dict[str, str] = {}
    for env in pod["spec"]["containers"][0].get("env", ()):
        if "value" in env:
            value = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], env["value"])
        else:
            path = env["valueFrom"]["fieldRef"]["fieldPath"]
            kind, _, key = path.removeprefix("metadata.").partition("['")
            held = pod["metadata"].get(kind, {})
            value = fields.get(path) or (held.get(key.removesuffix("']"), "") if key else "")
        found[env["name"]] = value
    return found
