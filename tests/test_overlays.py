"""What a platform engineer changes by an overlay of templates/k8s, built by kustomize itself.

Whatever he changes: every object is one that a cluster takes, every name leads to what it named
before, and a selector finds the pods of its own run and no other. No cluster is asked.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from envtune.cli.arguments import parser
from envtune.reference import claims
from envtune.settings import loading as config
from envtune.settings import sources
from tests.harness import ROOT
from tests.manifests import expanded, judge, templates
from tests.unit.builders import of_settings

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not here")

INSTANCE = "app.kubernetes.io/instance"
TRAINS = ("pod", "job", "nodes", "jobset", "statefulset", "pytorchjob", "trainjob")
SEVERAL = TRAINS[2:]
ALL = (*TRAINS, "serve", "monitor", "data", "files")
OWNERS = ("Pod", "Job", "JobSet", "StatefulSet", "PyTorchJob", "TrainJob", "Deployment")
# The last keys of what names another object, and of which kind that is.
NAMES = {
    ("configMapRef", "name"): "ConfigMap",
    ("configMap", "name"): "ConfigMap",
    ("secretRef", "name"): "Secret",
    ("credentials", "name"): "Secret",
    ("persistentVolumeClaim", "claimName"): "PersistentVolumeClaim",
    ("spec", "subdomain"): "Service",
    ("spec", "serviceName"): "Service",
    ("runtimeRef", "name"): "TrainingRuntime",
}

Thing = dict[str, Any]


@dataclass
class Built:
    """The objects that kustomize makes of an overlay."""

    things: list[Thing]

    def of(self, kind: str) -> list[Thing]:
        return [thing for thing in self.things if thing["kind"] == kind]

    def pods(self) -> list[tuple[str, Thing]]:
        """The name of each owner and its pod."""
        return [
            (_owner(self, thing), pod)
            for thing in self.things
            for pod in ([thing] if thing["kind"] == "Pod" else templates(thing))
        ]

    def containers(self) -> list[Thing]:
        return [c for _, pod in self.pods() for c in pod["spec"]["containers"]]


def _owner(built: Built, thing: Thing) -> str:
    """A TrainingRuntime's pods are those of the TrainJob that names it."""
    own = str(thing["metadata"]["name"])
    jobs = [t for t in built.of("TrainJob") if t["spec"]["runtimeRef"]["name"] == own]
    return str(jobs[0]["metadata"]["name"]) if thing["kind"] == "TrainingRuntime" else own


def build(folder: Path, overlay: str, *ways: str) -> Built:
    """An overlay of some ways, beside a copy of the templates; of none, where it names its own."""
    if not (folder / "templates").exists():
        shutil.copytree(ROOT / "templates" / "k8s", folder / "templates" / "k8s")
    own = folder / "overlay"
    own.mkdir(exist_ok=True)
    bases = "".join(f"  - ../templates/k8s/{way}\n" for way in ways)
    (own / "kustomization.yaml").write_text((f"resources:\n{bases}" if ways else "") + overlay)
    return kustomize(own)


def kustomize(folder: Path) -> Built:
    command = ["kubectl", "kustomize", folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return Built(list(yaml.safe_load_all(done.stdout)))


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield path, node
            yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        for item in node:
            yield from leaves(item, path)
    else:
        yield path, node


def selectors(thing: Thing) -> list[dict[str, str]]:
    """Every set of labels by which an object finds pods."""
    found = [node["matchLabels"] for _, node in leaves(thing) if isinstance(node, dict)
             and "matchLabels" in node]  # fmt: skip
    if thing["kind"] == "Service":
        found.append(thing["spec"]["selector"])
    return found


def judge_whole(built: Built) -> None:
    """What has to hold of any overlay."""
    for thing in built.things:
        judge(thing)
    _judge_names(built)
    _judge_selectors(built)
    _judge_meetings(built)


def _judge_names(built: Built) -> None:
    made = {(t["kind"], t["metadata"]["name"]) for t in built.things}
    kinds = {kind for kind, _ in made}
    for thing in built.things:
        for path, value in leaves(thing):
            kind = NAMES.get(path[-2:])
            if isinstance(value, str) and kind in kinds:
                assert (kind, value) in made, f"{thing['kind']}: {'/'.join(path)}: {value}"


def _judge_selectors(built: Built) -> None:
    pods = built.pods()
    owners = {t["metadata"]["name"]: t for kind in OWNERS for t in built.of(kind)}
    for thing in built.things:
        for wanted in selectors(thing):
            found = {
                own for own, pod in pods if wanted.items() <= pod["metadata"]["labels"].items()
            }
            if pods:
                assert len(found) == 1, f"{thing['kind']} {thing['metadata']['name']}: {found}"
            if thing["metadata"]["name"] in owners:  # it is of the run of this name
                assert found == {thing["metadata"]["name"]}


def _judge_meetings(built: Built) -> None:
    """Node 0 is a pod of this Job or StatefulSet, under the Service that gives its pods names."""
    for thing in (*built.of("Job"), *built.of("StatefulSet")):
        spec, name = thing["spec"], thing["metadata"]["name"]
        pod = spec["template"]
        if said := expanded(pod).get("MASTER_ADDR"):
            (service,) = {pod["spec"].get("subdomain"), spec.get("serviceName")} - {None}
            assert said == f"{name}-0.{service}"


@pytest.mark.parametrize("way", ALL)
def test_kustomize_makes_what_the_plain_files_say(way: str) -> None:
    folder = ROOT / "templates" / "k8s" / way
    files = [f for f in folder.iterdir() if f.name not in ("kustomization.yaml", "names.yaml")]
    plain = [t for f in files for t in yaml.safe_load_all(f.read_text())]
    built = kustomize(folder)
    judge_whole(built)
    by_name = {(t["kind"], t["metadata"]["name"]): t for t in built.things}
    assert by_name == {(t["kind"], t["metadata"]["name"]): t for t in plain}


NAMED = {
    "prefix": ("namePrefix: a-\n", "a-envtune"),
    "suffix": ("nameSuffix: -7b\n", "envtune-7b"),
    "both, elsewhere": ("namePrefix: a-\nnameSuffix: -7b\nnamespace: lab\n", "a-envtune-7b"),
}


@pytest.mark.parametrize("way", ALL)
@pytest.mark.parametrize(("overlay", "name"), NAMED.values(), ids=NAMED)
def test_a_name_is_followed_by_all_that_held_it(
    way: str, overlay: str, name: str, tmp_path: Path
) -> None:
    built = build(tmp_path, overlay, way)
    judge_whole(built)
    for own, pod in built.pods():
        whole = {"serve": "-serve", "data": "-data", "files": "-files"}.get(way, "")
        assert own == name.replace("envtune", f"envtune{whole}")
        assert pod["metadata"]["labels"][INSTANCE] == own
        assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "envtune"
    if "namespace" in overlay:
        assert {thing["metadata"]["namespace"] for thing in built.things} == {"lab"}


LABELS = """\
labels:
  - pairs: {team: nlp, app.kubernetes.io/instance: monday}
    includeSelectors: true
"""


@pytest.mark.parametrize("way", ALL)
@pytest.mark.parametrize("more", ["", "namePrefix: a-\n"], ids=["alone", "with a prefix"])
def test_labels_reach_every_pod_and_every_selector(way: str, more: str, tmp_path: Path) -> None:
    built = build(tmp_path, LABELS + more, way)
    judge_whole(built)
    mine = {"team": "nlp", INSTANCE: "monday"}
    for thing in built.things:
        assert mine.items() <= thing["metadata"]["labels"].items()
        for wanted in selectors(thing):
            assert mine.items() <= wanted.items(), thing["kind"]
    for _, pod in built.pods():
        assert mine.items() <= pod["metadata"]["labels"].items()


def test_one_label_for_all_does_not_mix_what_trains_and_what_serves(tmp_path: Path) -> None:
    judge_whole(build(tmp_path, LABELS, "nodes", "serve", "monitor", "data", "files"))


@pytest.mark.parametrize("way", TRAINS)
def test_two_runs_in_one_namespace_do_not_catch_each_others_pods(way: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tmp_path, f"namePrefix: {name}-\n", way, "serve")
        (tmp_path / "overlay").rename(tmp_path / name)
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "kustomization.yaml").write_text(
        "namespace: lab\nresources: [../a, ../b]\n"
    )
    built = kustomize(tmp_path / "both")
    judge_whole(built)
    runs = {own for own, _ in built.pods()}
    assert runs == {"a-envtune", "b-envtune", "a-envtune-serve", "b-envtune-serve"}
    for own, pod in built.pods():
        mounted = [v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"]
                   if "persistentVolumeClaim" in v]  # fmt: skip
        assert {claim[:2] for claim in mounted} == {own[:2]}


def test_a_training_its_data_its_server_and_its_monitor_are_one_overlay(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        "namePrefix: a-\nsecretGenerator: [{name: envtune, literals: [VLLM_API_KEY=k]}]\n",
        "nodes", "serve", "monitor", "data", "files",
    )  # fmt: skip
    judge_whole(built)
    (secret,) = built.of("Secret")
    name = secret["metadata"]["name"]
    assert re.fullmatch(r"a-envtune-\w{10}", name)  # a new one with each key
    monitors = built.of("PodMonitor")
    assert {m["metadata"]["name"] for m in monitors} == {"a-envtune-serve", "a-envtune"}
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["authorization"]["credentials"]["name"] == name
    for container in built.containers():
        assert {"secretRef", name} <= {
            key for source in container["envFrom"] for key in (*source, *_named(source))
        }


def _named(source: Thing) -> list[str]:
    return [inner["name"] for inner in source.values()]


SECRET = """\
patches:
  - target: {kind: %s}
    patch: |-
      - {op: replace, path: %s/containers/0/envFrom/1/secretRef/name, value: team-keys}
"""
PATHS = {"Job": "/spec/template/spec", "Deployment": "/spec/template/spec", "Pod": "/spec"}


@pytest.mark.parametrize(
    ("way", "kind"), [("job", "Job"), ("nodes", "Job"), ("serve", "Deployment"), ("pod", "Pod")]
)
def test_a_secret_may_have_another_name(way: str, kind: str, tmp_path: Path) -> None:
    built = build(tmp_path, SECRET % (kind, PATHS[kind]) + "namePrefix: a-\n", way)
    judge_whole(built)
    (container,) = built.containers()
    assert container["envFrom"][1]["secretRef"]["name"] == "team-keys"


STORAGE = """\
patches:
  - target: {kind: PersistentVolumeClaim}
    patch: |-
      - {op: add, path: /spec/storageClassName, value: fast}
"""


@pytest.mark.parametrize("way", TRAINS)
def test_all_claims_take_another_storage_class(way: str, tmp_path: Path) -> None:
    built = build(tmp_path, STORAGE, way)
    judge_whole(built)
    classes = [t["spec"]["storageClassName"] for t in built.of("PersistentVolumeClaim")]
    assert classes == ["fast"] * 3


@pytest.mark.parametrize(("billions", "flags"), [("0.5", []), ("70", []), ("13", ["--full"])])
def test_the_claims_become_as_large_as_a_model_wants(
    billions: str, flags: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "envtune.reference.claims", billions, *flags]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    built = build(tmp_path, said + "namePrefix: a-\n", "nodes")
    judge_whole(built)
    sizes = {t["metadata"]["name"]: int(t["spec"]["resources"]["requests"]["storage"][:-2])
             for t in built.of("PersistentVolumeClaim")}  # fmt: skip
    weights = float(billions) * 2e9 / 2**30
    assert sizes["a-envtune-models"] >= weights
    # Weights and two moments in 32 bit, three checkpoints and one more, and the result.
    assert sizes["a-envtune-out"] >= weights * (4 * 6 + 1 if flags else 1)


MORE_GPUS = """\
patches:
  - target: {kind: Job}
    patch: |-
      - op: replace
        path: /spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu
        value: "8"
"""
MORE_NODES = """\
patches:
  - target: {kind: Job}
    patch: |-
      - {op: replace, path: /spec/completions, value: 4}
      - {op: replace, path: /spec/parallelism, value: 4}
  - target: {kind: ConfigMap}
    patch: |-
      - {op: replace, path: /data/NNODES, value: "4"}
"""


@pytest.mark.parametrize("way", ["job", "nodes"])
def test_a_pod_has_eight_gpus(way: str, tmp_path: Path) -> None:
    built = build(tmp_path, MORE_GPUS, way)
    judge_whole(built)
    (container,) = built.containers()
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_a_training_has_four_nodes(tmp_path: Path) -> None:
    built = build(tmp_path, MORE_NODES + "namePrefix: a-\n", "nodes")
    judge_whole(built)
    (job,), (settings,) = built.of("Job"), built.of("ConfigMap")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    assert settings["data"]["NNODES"] == "4"


DIGEST = f"sha256:{'0123456789abcdef' * 4}"
REGISTRY = f"""\
images:
  - name: envtune
    newName: registry.example.com/ml/envtune
    digest: {DIGEST}
patches:
  - target: {{kind: Job}}
    patch: |-
      - op: add
        path: /spec/template/spec/imagePullSecrets
        value: [{{name: registry}}]
      - op: add
        path: /spec/template/spec/tolerations
        value: [{{key: gpu, operator: Exists, effect: NoSchedule}}]
      - op: add
        path: /spec/template/spec/nodeSelector
        value: {{gpu: h100}}
"""


@pytest.mark.parametrize("way", [way for way in ALL if way != "monitor"])
def test_the_image_comes_from_a_private_registry_by_its_digest(way: str, tmp_path: Path) -> None:
    built = build(tmp_path, REGISTRY, way)
    judge_whole(built)
    images = {container["image"] for container in built.containers()}
    assert images == {f"registry.example.com/ml/envtune@{DIGEST}"}
    for job in built.of("Job"):
        pod = job["spec"]["template"]["spec"]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["tolerations"][0]["key"] == "gpu"
        assert pod["nodeSelector"] == {"gpu": "h100"}


QUEUE = "labels: [{pairs: {kueue.x-k8s.io/queue-name: mine}}]\n"


@pytest.mark.parametrize("way", ["job", "nodes", "jobset", "pytorchjob", "trainjob"])
def test_a_queue_of_kueues_takes_a_training(way: str, tmp_path: Path) -> None:
    built = build(tmp_path, QUEUE, way)
    judge_whole(built)
    for kind in ("Job", "JobSet", "PyTorchJob", "TrainJob"):
        for thing in built.of(kind):
            assert thing["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "mine"


SETTINGS = """\
patches:
  - patch: |-
      apiVersion: v1
      kind: ConfigMap
      metadata: {name: envtune}
      data:
        AXOLOTL_BASE_MODEL: acme/large
        AXOLOTL_LORA_R: "64"
"""


@pytest.mark.parametrize("way", ["job", "nodes", "jobset", "pytorchjob"])
def test_settings_are_a_patch_of_the_config_map(way: str, tmp_path: Path) -> None:
    built = build(tmp_path, SETTINGS + "namePrefix: a-\n", way)
    judge_whole(built)
    (settings,) = built.of("ConfigMap")
    assert settings["data"]["AXOLOTL_BASE_MODEL"] == "acme/large"
    assert settings["data"]["AXOLOTL_LORA_R"] == "64"
    assert settings["data"]["SFT_OUTPUTS_DIR"] == "/out/outputs"


RENAMED = """\
patches:
  - target: {kind: %s, name: envtune}
    options: {allowNameChange: true}
    patch: |-
      - {op: replace, path: /metadata/name, value: other}
"""


@pytest.mark.parametrize(
    ("way", "kind"),
    [("job", "Job"), ("nodes", "Job"), ("nodes", "Service"), ("nodes", "ConfigMap"),
     ("statefulset", "StatefulSet"), ("statefulset", "Service"), ("jobset", "JobSet"),
     ("trainjob", "TrainingRuntime"), ("serve", "Deployment")],
)  # fmt: skip
def test_one_object_alone_may_have_another_name(way: str, kind: str, tmp_path: Path) -> None:
    name = "envtune-serve" if way == "serve" else "envtune"
    text = RENAMED.replace("name: envtune", f"name: {name}") % kind
    judge_whole(build(tmp_path, text + "namePrefix: a-\n", way))


def test_a_variable_that_happens_to_be_a_name_stays_as_it_is(tmp_path: Path) -> None:
    text = """\
namePrefix: a-
patches:
  - target: {kind: Job}
    patch: |-
      - op: add
        path: /spec/template/spec/containers/0/env/-
        value: {name: WANDB_PROJECT, value: envtune}
"""
    built = build(tmp_path, text, "nodes")
    judge_whole(built)
    ((_, pod),) = built.pods()
    assert expanded(pod)["WANDB_PROJECT"] == "envtune"


def documented() -> list[str]:
    """The kustomizations that the page shows."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    return re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_overlay_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    (text,) = [text for text in documented() if "llama-" in text]
    built = build(tmp_path, text)
    judge_whole(built)
    (job,), (container,) = built.of("Job"), built.containers()
    assert (job["metadata"]["name"], job["metadata"]["namespace"]) == ("llama-envtune", "lab")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container["image"].startswith("registry.example.com/ml/envtune@sha256:")
    (settings,) = built.of("ConfigMap")
    loaded = config.load(sources.with_documents(sources.read((), settings["data"])))
    assert not list(of_settings(loaded))


def test_runs_share_claims_that_none_of_their_overlays_makes(tmp_path: Path) -> None:
    (text,) = [text for text in documented() if "$patch: delete" in text]
    built = build(tmp_path, text)
    judge_whole(built)
    assert not built.of("PersistentVolumeClaim")
    ((own, pod),) = built.pods()
    assert own == "tuesday-envtune"
    mounted = [v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"]
               if "persistentVolumeClaim" in v]  # fmt: skip
    assert mounted == ["envtune-data", "envtune-out", "envtune-models"]


def test_an_init_container_brings_the_data_as_the_page_shows(tmp_path: Path) -> None:
    (text,) = [text for text in documented() if "initContainers" in text]
    built = build(tmp_path, text)
    judge_whole(built)
    (job,) = built.of("Job")
    pod = job["spec"]["template"]["spec"]
    (first,), (main,) = pod["initContainers"], pod["containers"]
    args = parser().parse_args(first["args"][1:])
    (mount,) = [mount for mount in first["volumeMounts"] if mount["name"] == "data"]
    assert (args.verb, first["args"][0]) == ("copy", "envtune")
    assert args.folder.is_relative_to(mount["mountPath"])
    assert not mount.get("readOnly")
    assert first["image"] == main["image"]
    assert first["securityContext"] == main["securityContext"]


def test_the_page_tells_the_sizes_that_are_reckoned() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| (\d+) B \| (\w+) \| (\w+) \| (\w+) \|$", page, re.MULTILINE)
    assert len(rows) > 4
    for billions, *told in rows:
        lora, full = (claims.sizes(float(billions), 1, full=full) for full in (False, True))
        assert told == [lora["models"], lora["out"], full["out"]]
