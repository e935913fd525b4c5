"""A training on Kubernetes, once for each kind of object that may own its pods."""

import json
from collections.abc import Mapping

from envtune.reference.example import REQUIRED
from envtune.reference.kubernetes import network, pods
from envtune.reference.kubernetes.pods import NAME, Node
from envtune.settings import loading, sources
from envtune.settings.own.place import ON_FINISH

_NODES = 2
_RETRIES = 3
_NODE = "node"
_QUEUE = {"kueue.x-k8s.io/queue-name": "user-queue"}
_UNQUEUED = {f"#{label}": queue for label, queue in _QUEUE.items()}
# What may own the pods of a training.
KINDS = ("Pod", "Job", "JobSet", "StatefulSet", "PyTorchJob", "TrainJob")
# Whether the processes reach each other, before anything is fetched.
_TRIED = {"#SFT_SMOKE_DDP": "true"}
# Where node 0 is: the first pod of the run, below its Service.
_NAMES = {pods.RUN: NAME, pods.SERVICE: NAME}
_MEETING = (
    pods.field("RUN_NAME", f"metadata.annotations['{pods.RUN}']"),
    pods.field("SERVICE_NAME", f"metadata.annotations['{pods.SERVICE}']"),
    {"name": "MASTER_ADDR", "value": "$(RUN_NAME)-0.$(SERVICE_NAME)"},
)


def pod() -> list[Node]:
    """The settings are a document of the ConfigMap, as other trainers have it."""
    document = {"config.json": json.dumps(_typed(REQUIRED), indent=2) + "\n"}
    mounted = {"SFT_TRAINER_CONFIG_JSON_PATH": "/config/config.json"}
    main = pods.container()
    main["volumeMounts"].append({"name": "config", "mountPath": "/config"})
    spec = pods.spec(main)
    spec["volumes"].append({"name": "config", "configMap": {"name": f"{NAME}-config"}})
    return [
        pods.config(document, f"{NAME}-config"),
        pods.config({**mounted, **pods.SETTINGS}),
        network.closed(NAME),
        pods.lone(NAME, spec),
    ]


def _typed(environ: Mapping[str, str]) -> Node:
    loaded = loading.load(sources.read((), environ)).axolotl
    return {key: setting.value for key, setting in loaded.items()}


def _named(name: str = NAME) -> Node:
    return {pods.INSTANCE: name}


def _settings(**more: str) -> Node:
    return pods.config({**REQUIRED, **more, **pods.SETTINGS, **_TRIED})


def job() -> list[Node]:
    template = pods.template(pods.spec(pods.container()))
    return [_settings(), network.closed(NAME), job_of(NAME, template)]


def job_of(
    name: str, template: Node, main: str = NAME, retries: int = _RETRIES, **more: object
) -> Node:
    """A Job with one kind of pod, whose container is `main`; `more` of its specification."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": pods.metadata(name, **_named(name), **_UNQUEUED),
        "spec": _job(template, main, retries, **more),
    }


def _job(template: Node, main: str, retries: int, **more: object) -> Node:
    return {
        **more,
        "backoffLimit": retries,
        "podFailurePolicy": pods.failure_policy(main),
        "template": template,
    }


def _indexed() -> Node:
    return {"completionMode": "Indexed", "completions": _NODES, "parallelism": _NODES}


def nodes() -> list[Node]:
    """An indexed Job: its pods have numbers and names, and it ends when they are done."""
    spec = pods.spec(pods.container(NAME, NAME, *_MEETING), subdomain=NAME, **pods.apart())
    return [
        _settings(NNODES=str(_NODES)),
        network.headless(),
        network.closed(NAME, network.among()),
        # Where one node fails the others fail with it, and each of them counts.
        job_of(NAME, pods.template(spec, **_NAMES), retries=_RETRIES * _NODES, **_indexed()),
    ]


def jobset() -> list[Node]:
    """It makes its own Service, tells every pod where node 0 is, and starts all nodes again
    where one of them ends with what is worth it."""
    where = pods.field("MASTER_ADDR", "metadata.annotations['jobset.sigs.k8s.io/coordinator']")
    spec = pods.spec(pods.container(NAME, NAME, where), **pods.apart())
    useless = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return [
        _settings(NNODES=str(_NODES)),
        network.closed(NAME, network.among()),
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": pods.metadata(**_named(), **_UNQUEUED),
            "spec": {
                "coordinator": {"replicatedJob": _NODE, "jobIndex": 0, "podIndex": 0},
                "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
                "failurePolicy": {
                    "maxRestarts": _RETRIES,
                    "rules": [{"name": "wrong", **useless}],
                },
                "replicatedJobs": [
                    {
                        "name": _NODE,
                        "replicas": 1,
                        "template": {"spec": _job(pods.template(spec), NAME, 0, **_indexed())},
                    }
                ],
            },
        },
    ]


def statefulset() -> list[Node]:
    """Its pods are started again whatever they end with, so they stay when they are done."""
    name = pods.field("POD_NAME", "metadata.name")
    main = pods.container(NAME, NAME, name, *_MEETING)
    spec = pods.spec(main, restart=None, **pods.apart())
    return [
        _settings(NNODES=str(_NODES), **{ON_FINISH: "idle"}),
        network.headless(),
        network.closed(NAME, network.among()),
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": pods.metadata(**_named()),
            "spec": {
                "replicas": _NODES,
                "serviceName": NAME,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": pods.instance(NAME)},
                "template": pods.template(spec, **_NAMES),
            },
        },
    ]


def pytorchjob() -> list[Node]:
    """Kubeflow's operator says itself which pod is which. Its restart by exit code retries
    above 127, as the exit codes here mean it."""
    main = pods.container("pytorch")
    pod = pods.template(pods.spec(main, restart=None, **pods.apart()))
    replicas = {"Master": 1, "Worker": _NODES - 1}
    return [
        _settings(),
        network.closed(NAME, network.among()),
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": pods.metadata(**_named(), **_QUEUE),
            "spec": {
                "nprocPerNode": "auto",
                "runPolicy": {"backoffLimit": _RETRIES * _NODES, "cleanPodPolicy": "Running"},
                "pytorchReplicaSpecs": {
                    role: {"replicas": count, "restartPolicy": "ExitCode", "template": pod}
                    for role, count in replicas.items()
                },
            },
        },
    ]


def trainjob() -> list[Node]:
    spec = pods.spec(pods.container(_NODE), **pods.apart())
    api = "trainer.kubeflow.org/v1alpha1"
    ancestor = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    node = {
        "name": _NODE,
        "template": {
            "metadata": {"labels": ancestor},
            "spec": _job(pods.template(spec), _NODE, _RETRIES * _NODES),
        },
    }
    policy: Node = {"numNodes": _NODES, "torch": {}}
    return [
        _settings(),
        network.closed(NAME, network.among()),
        {
            "apiVersion": api,
            "kind": "TrainingRuntime",
            "metadata": pods.metadata(NAME, **{"trainer.kubeflow.org/framework": "torch"}),
            "spec": {"mlPolicy": policy, "template": {"spec": {"replicatedJobs": [node]}}},
        },
        {
            "apiVersion": api,
            "kind": "TrainJob",
            "metadata": pods.metadata(**_named(), **_UNQUEUED),
            "spec": {
                "runtimeRef": {"kind": "TrainingRuntime", "name": NAME},
                "trainer": {"numNodes": _NODES},
            },
        },
    ]
