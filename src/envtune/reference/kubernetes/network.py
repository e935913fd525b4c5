"""How pods reach each other, and who else reaches them."""

from envtune.reference.kubernetes import pods
from envtune.reference.kubernetes.pods import NAME, Node

_PORT = 29500


def headless() -> Node:
    """A Service by which the pods of a run know each other before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": pods.instance(NAME),
            "ports": [{"name": "rendezvous", "port": _PORT}],
        },
    }


def closed(name: str, *allowed: Node) -> Node:
    """A NetworkPolicy: what reaches the pods of a run or server. Without a rule, nothing does."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": pods.metadata(name),
        "spec": {
            "podSelector": {"matchLabels": pods.instance(name)},
            "policyTypes": ["Ingress"],
            "ingress": list(allowed),
        },
    }


def opened(name: str, port: str) -> Node:
    """A NetworkPolicy that opens one port of the pods of a run, beside what closes them."""
    rule = closed(name, {"ports": [{"port": port}]})
    return {**rule, "metadata": pods.metadata(f"{name}-{port}")}


def among() -> Node:
    """The rule that lets the pods of one run reach each other on any port: NCCL and gloo take
    whichever is free."""
    return {"from": [{"podSelector": {"matchLabels": pods.instance(NAME)}}]}
