"""The Pod of templates/k8s with its ConfigMaps, started by podman, which knows that much."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.image.containers import ENGINE, HOME, IMAGE, ROOT, engine, judge, log

POD = ROOT / "templates" / "k8s" / "pod" / "pod.yaml"
PAUSE = "localhost/envtune-pause:1"

pytestmark = pytest.mark.skipif(ENGINE[0] != "podman", reason="`podman play kube` needs podman")


@pytest.fixture(scope="session")
def pause(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What holds a pod's namespaces, which podman would pull."""
    folder = tmp_path_factory.mktemp("pause")
    (folder / "Dockerfile").write_text(
        'FROM scratch\nCOPY catatonit /\nENTRYPOINT ["/catatonit", "-P"]\n'
    )
    (folder / "catatonit").write_bytes(Path("/usr/bin/catatonit").read_bytes())
    (folder / "catatonit").chmod(0o755)
    build = [
        "buildah",
        "build",
        "--quiet",
        "--isolation",
        "chroot",
        "--format",
        "docker",
        "-t",
        PAUSE,
    ]
    subprocess.run([*build, folder], check=True, capture_output=True)


def on_this_machine(folder: Path, name: str) -> list[dict[str, Any]]:
    """The manifest, with what a cluster has and one machine has not: claims are folders, there
    is no GPU and no network of pods, and podman's empty folders are root's alone."""
    kept = []
    for document in yaml.safe_load_all(POD.read_text()):
        if document["kind"] == "NetworkPolicy":
            continue
        if document["metadata"]["name"] == "envtune-config":
            document["data"]["config.json"] = json.dumps({
                "base_model": f"{HOME}/demo/tiny-llama",
                "datasets": [{"path": f"{HOME}/demo/instructions.jsonl", "type": "chat_template"}],
                "sequence_len": 128, "learning_rate": 5e-3, "max_steps": 4,
            })  # fmt: skip
        elif document["kind"] == "ConfigMap":
            document["data"] |= {"SFT_DEVICE": "cpu", "SFT_PARITY": "off"}
        else:
            document["metadata"]["name"] = name
            document["spec"]["hostNetwork"] = True
            container = document["spec"]["containers"][0]
            container["image"] = f"localhost/{IMAGE}"
            container["envFrom"] = [part for part in container["envFrom"] if "configMapRef" in part]
            del container["resources"]
            container.pop("ports", None)  # of a network of pods
            for volume in document["spec"]["volumes"]:
                if volume.pop("persistentVolumeClaim", None) or volume.pop("emptyDir", None):
                    path = folder / volume["name"]
                    path.mkdir()
                    path.chmod(0o1777)
                    volume["hostPath"] = {"path": str(path), "type": "Directory"}
        kept.append(document)
    return kept


@pytest.fixture
def played(pause: None, tmp_path: Path) -> Iterator[str]:
    """The name of the container of the pod."""
    name, file = f"envtune-test-{uuid4().hex[:12]}", tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump_all(on_this_machine(tmp_path, name)))
    started = engine("play", "kube", str(file))
    assert started.returncode == 0, started.stderr
    yield f"{name}-envtune"
    engine("pod", "rm", "--force", name)


def test_the_pod_trains_by_its_config_map(played: str, tmp_path: Path) -> None:
    ended = log(played, int(engine("wait", played).stdout))
    assert ended.code == 0, ended.out + ended.err
    judge(ended)
    outputs = tmp_path / "out" / "outputs"
    run = outputs / (outputs / "latest.txt").read_text().strip()
    assert (run / ".complete").exists()
    resolved = json.loads((run / "config" / "resolved.json").read_text())
    assert "/config/config.json" in json.dumps(resolved)
