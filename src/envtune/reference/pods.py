"""The pod that every manifest runs: its volumes, its limits, what it may not do."""

from typing import Any

from envtune.errors import Exit

Node = dict[str, Any]

NAME = "envtune"
IMAGE = "envtune:cuda"
USER = 10001
# Seconds for the checkpoint of a model of some billions, and what the kubelet waits more.
GRACE = 110
_MARGIN = 10
# The kernel's or the kubelet's kill: the next start goes on from the last checkpoint.
_KILLED = 137
_AGAIN = (_KILLED, Exit.STOPPED, Exit.DISK, Exit.NETWORK, Exit.HARDWARE, Exit.BUG)
_PORT = 29500

_VOLUMES: Node = {
    "data": {"persistentVolumeClaim": {"claimName": f"{NAME}-data"}},
    "out": {"persistentVolumeClaim": {"claimName": f"{NAME}-out"}},
    "models": {"persistentVolumeClaim": {"claimName": f"{NAME}-models"}},
    "workspace": {"emptyDir": {"sizeLimit": "20Gi"}},
    "tmp": {"emptyDir": {"sizeLimit": "10Gi"}},
    "shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
}
_PATHS = {"shm": "/dev/shm"}
_RESOURCES: Node = {
    "requests": {"cpu": "8", "memory": "48Gi", "ephemeral-storage": "40Gi"},
    "limits": {"memory": "96Gi", "ephemeral-storage": "40Gi", "nvidia.com/gpu": "1"},
}
SETTINGS = {
    "SFT_OUTPUTS_DIR": "/out/outputs",
    "SFT_LOGS_DIR": "/out/logs",
    "SFT_GRACE_SECONDS": str(GRACE),
    "HF_HOME": "/models/huggingface",
    "HOME": "/tmp",
}


def metadata(name: str = NAME, **labels: str) -> Node:
    return {"name": name, "labels": {"app.kubernetes.io/name": name, **labels}}


def config(values: Node, name: str = NAME) -> Node:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name), "data": values}


def claims(mode: str = "ReadWriteOnce") -> list[Node]:
    """What outlives the pod: data, results, and the models that were fetched."""
    sizes = {"data": "10Gi", "out": "200Gi", "models": "200Gi"}
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
        for name, size in sizes.items()
    ]


def field(variable: str, path: str) -> Node:
    """A variable that holds a field of the pod itself."""
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


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
        "volumeMounts": [_mount(volume) for volume in _VOLUMES],
        **more,
    }


def _mount(volume: str) -> Node:
    readonly = {"readOnly": True} if volume == "data" else {}
    return {"name": volume, "mountPath": _PATHS.get(volume, f"/{volume}"), **readonly}


def spec(main: Node, *, restart: str | None = "Never", **more: Any) -> Node:
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
        "volumes": [{"name": name, **volume} for name, volume in _VOLUMES.items()],
    }


def template(pod: Node, name: str) -> Node:
    return {"metadata": {"labels": {"app.kubernetes.io/name": name}}, "spec": pod}


def apart(name: str) -> Node:
    """Keeps the pods of `name` on machines of their own, and spreads them over zones."""
    own = {"matchLabels": {"app.kubernetes.io/name": name}}
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


def headless(name: str) -> Node:
    """A Service by which the pods of `name` know each other before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "rendezvous", "port": _PORT}],
        },
    }
