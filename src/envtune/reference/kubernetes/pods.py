"""The pod that every manifest runs: its volumes, its limits, its labels, what it may not do."""

from collections.abc import Mapping
from typing import Any

from envtune.errors import Exit
from envtune.reference import claims

Node = dict[str, Any]

NAME = "envtune"
IMAGE = "envtune:cuda"
USER = 10001
# What tells the pods of one run from those of another: it follows the run's name (see `names`).
INSTANCE = "app.kubernetes.io/instance"
# The names that a pod is told: of the run that owns it, and of the Service below which it has its
# own. Annotations, since kustomize would take any variable of the same value for a name.
RUN, SERVICE = "envtune.org/run", "envtune.org/service"
# Where a training shows itself, once SFT_STATUS_PORT says so.
STATUS = 8080
# Seconds for the checkpoint of a model of some billions, and what the kubelet waits more.
GRACE = 110
_MARGIN = 10
# The kernel's or the kubelet's kill: the next start goes on from the last checkpoint.
_KILLED = 137
_AGAIN = (_KILLED, Exit.STOPPED, Exit.DISK, Exit.NETWORK, Exit.HARDWARE, Exit.BUG)

_VOLUMES: Node = {
    **{name: {"persistentVolumeClaim": {"claimName": f"{NAME}-{name}"}} for name in claims.VOLUMES},
    "workspace": {"emptyDir": {"sizeLimit": "20Gi"}},
    "tmp": {"emptyDir": {"sizeLimit": "10Gi"}},
    "shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
}
_PATHS = {"shm": "/dev/shm"}
_RESOURCES: Node = {
    "requests": {"cpu": "8", "memory": "48Gi", "ephemeral-storage": "40Gi"},
    "limits": {"memory": "96Gi", "ephemeral-storage": "40Gi", "nvidia.com/gpu": "1"},
}
# A start of Python each minute; what has been silent for ten of them hangs.
_PROBE: Node = {
    "exec": {"command": ["envtune", "health"]},
    "initialDelaySeconds": 60,
    "periodSeconds": 60,
    "timeoutSeconds": 30,
    "failureThreshold": 10,
}


def _named(volumes: Mapping[str, Node]) -> list[Node]:
    return [{"name": name, **volume} for name, volume in volumes.items()]


# The volumes of whoever carries files in and out.
KEPT = _named({name: _VOLUMES[name] for name in (*claims.VOLUMES, "tmp")})
SETTINGS = {
    "SFT_OUTPUTS_DIR": "/out/outputs",
    "SFT_LOGS_DIR": "/out/logs",
    "SFT_GRACE_SECONDS": str(GRACE),
    "HF_HOME": "/models/huggingface",
    "HOME": "/tmp",
}


def metadata(name: str = NAME, **labels: str) -> Node:
    return {"name": name, "labels": {"app.kubernetes.io/name": NAME, **labels}}


def instance(name: str) -> Node:
    """The labels of the pods of one run or server, by which alone they are selected. What they do
    is one of them: an overlay may call its training and its server the same."""
    part = name.removeprefix(NAME).removeprefix("-") or "train"
    return {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": part, INSTANCE: name}


def config(values: Node, name: str = NAME) -> Node:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name), "data": values}


def held(mode: str) -> list[Node]:
    """What outlives the pod: data, results, and the models that were fetched."""
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata(f"{NAME}-{name}"),
            "spec": {
                "accessModes": [mode],
                "#storageClassName": "standard",
                "resources": {"requests": {"storage": size}},
            },
        }
        for name, size in claims.sizes().items()
    ]


def field(variable: str, path: str) -> Node:
    """A variable that holds a field of the pod itself."""
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def secret(variable: str) -> Node:
    """A variable that the Secret has to hold."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": NAME, "key": variable}}}


def container(name: str = NAME, settings: str = NAME, *env: Node, **more: Any) -> Node:
    """The container with the ConfigMap `settings` and the variables `env`; `more` goes over it."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [
            {"configMapRef": {"name": settings}},
            {"secretRef": {"name": NAME, "optional": True}},
        ],
        # A pod that is made again has the name of the last one, and may be larger.
        "env": [field("POD_UID", "metadata.uid"), *env],
        "resources": _RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [{"name": "status", "containerPort": STATUS, "protocol": "TCP"}],
        "livenessProbe": _PROBE,
        "volumeMounts": [_mount(volume) for volume in _VOLUMES],
        **more,
    }


def _mount(volume: str) -> Node:
    readonly = {"readOnly": True} if volume == "data" else {}
    return {"name": volume, "mountPath": _PATHS.get(volume, f"/{volume}"), **readonly}


def porter(name: str, args: list[str]) -> Node:
    """A container without a GPU that may write to all that is kept; it trains nothing, so that
    nothing of it can hang."""
    kept = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in KEPT]
    made = container(
        name,
        name,
        args=args,
        resources={
            "requests": {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "1Gi"},
            "limits": {"memory": "4Gi", "ephemeral-storage": "10Gi"},
        },
        volumeMounts=kept,
    )
    del made["livenessProbe"], made["ports"]
    return made


def spec(
    main: Node, *, restart: str | None = "Never", volumes: list[Node] | None = None, **more: Any
) -> Node:
    """The pod's specification around its container, and `more` of it."""
    return {
        **({"restartPolicy": restart} if restart else {}),
        "terminationGracePeriodSeconds": GRACE + _MARGIN,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "#imagePullSecrets": [{"name": "registry"}],
        "#tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        **more,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": 0,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [main],
        "volumes": _named(_VOLUMES) if volumes is None else volumes,
    }


def lone(name: str, pod: Node) -> Node:
    """A Pod that nobody owns."""
    metadata = {"name": name, "labels": instance(name)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def template(pod: Node, name: str = NAME, **annotations: str) -> Node:
    more = {"annotations": annotations} if annotations else {}
    return {"metadata": {"labels": instance(name), **more}, "spec": pod}


def apart() -> Node:
    """Keeps the pods of a run on machines of their own, and spreads them over zones."""
    own = {"matchLabels": instance(NAME)}
    return {
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": own, "topologyKey": "kubernetes.io/hostname"}
                ]
            }
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": own,
            }
        ],
    }


def failure_policy(main: str = NAME) -> Node:
    """What the exit codes are worth to a Job: all others end it, a stop does not count."""
    again = [int(code) for code in _AGAIN]
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": main, "operator": "NotIn", "values": again},
            },
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
            {
                "action": "Ignore",
                "onExitCodes": {
                    "containerName": main,
                    "operator": "In",
                    "values": [int(Exit.STOPPED)],
                },
            },
        ]
    }
