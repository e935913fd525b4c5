"""templates/k8s as a cluster would take it. No cluster is asked."""

import copy
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from envtune.errors import Exit
from envtune.machine import rendezvous
from envtune.settings import loading as config
from envtune.settings import sources
from envtune.settings.own import OWN
from tests.harness import ROOT
from tests.manifests import VERSIONS, Unfit, judge, templates
from tests.unit.builders import of_settings

FILES = sorted((ROOT / "templates" / "k8s").glob("*/*.yaml"))
PLAIN = [file for file in FILES if file.name != "kustomization.yaml"]
LINT = YamlLintConfig(
    "{extends: default, rules: {document-start: disable, line-length: {max: 100}}}"
)
# Maps whose keys are anybody's.
FREE = {"data", "labels", "matchLabels", "requests", "limits", "selector"}
# What README.md says is worth a retry.
RETRIED = {Exit.STOPPED, Exit.DISK, Exit.NETWORK, Exit.HARDWARE, Exit.BUG}


def name(file: Path) -> str:
    return f"{file.parent.name}-{file.stem}"


def objects(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def one(way: str, kind: str) -> dict[str, Any]:
    """The only object of a kind in a file."""
    file = ROOT / "templates" / "k8s" / way / f"{way}.yaml"
    (found,) = [thing for thing in objects(file) if thing["kind"] == kind]
    return found


def pods(file: Path) -> list[dict[str, Any]]:
    """The specifications of every pod that a file would start."""
    whole = [thing["spec"] for thing in objects(file) if thing["kind"] == "Pod"]
    return whole + [found["spec"] for thing in objects(file) for found in templates(thing)]


def settings(way: str) -> dict[str, str]:
    """The variables that the container gets."""
    file = ROOT / "templates" / "k8s" / way / f"{way}.yaml"
    (source,) = {pod["containers"][0]["envFrom"][0]["configMapRef"]["name"] for pod in pods(file)}
    maps = [thing for thing in objects(file) if thing["kind"] == "ConfigMap"]
    (data,) = [thing["data"] for thing in maps if thing["metadata"]["name"] == source]
    return dict(data)


WAYS = [file.stem for file in PLAIN]


def test_there_is_a_file_for_each_way() -> None:
    assert {"pod", "job", "nodes", "statefulset", "pytorchjob", "trainjob", "serve"} == set(WAYS)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_yaml_is_clean(file: Path) -> None:
    assert not [str(problem) for problem in linter.run(file.read_text(), LINT)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", PLAIN, ids=name)
def test_a_cluster_would_take_every_object_as_it_is(file: Path, version: str) -> None:
    for thing in objects(file):
        judge(thing, version)


def closed(node: Any, free: bool = False) -> Iterator[dict[str, Any]]:
    """Every map in an object whose keys are the API's."""
    if isinstance(node, list):
        for item in node:
            yield from closed(item)
    elif isinstance(node, dict):
        if not free:
            yield node
        for key, value in node.items():
            yield from closed(value, key in FREE and "matchLabels" not in value)


@pytest.mark.parametrize("file", PLAIN, ids=name)
def test_a_field_that_nobody_knows_is_refused_wherever_it_stands(
    file: Path, dice: random.Random
) -> None:
    for thing in objects(file):
        judge(thing)
        maps = len(list(closed(thing)))
        for i in dice.sample(range(maps), k=min(3, maps)):
            spoilt = copy.deepcopy(thing)
            list(closed(spoilt))[i]["terminationGraceSeconds"] = 1
            with pytest.raises(Unfit):
                judge(spoilt)


@pytest.mark.parametrize("file", PLAIN, ids=name)
def test_what_is_commented_out_can_be_turned_on(file: Path) -> None:
    text = re.sub(r"^( *)# ( *(?:- )?[\w./-]+:.*)$", r"\1\2", file.read_text(), flags=re.MULTILINE)
    head, _, body = text.partition("apiVersion: v1\n")
    changed = list(yaml.safe_load_all("apiVersion: v1\n" + body))
    claims = any(thing["kind"] == "PersistentVolumeClaim" for thing in changed)
    assert head.count("#") == 3 + claims, head
    ends = f"# End it by kubectl delete {changed[-1]['kind'].lower()}/envtune: "
    assert (ends in head) == claims  # with the file the results would go too
    for thing in changed:
        judge(thing)
        for pod in (found["spec"] for found in templates(thing)):
            assert {"tolerations", "imagePullSecrets"} <= pod.keys()
    assert len(changed) == len(objects(file))


@pytest.mark.parametrize("file", PLAIN, ids=name)
def test_every_pod_is_confined_and_its_grace_is_longer_than_the_runs(file: Path) -> None:
    found = pods(file)
    assert found
    for pod in found:
        (container,) = pod["containers"]
        assert pod["enableServiceLinks"] is False
        assert pod["terminationGracePeriodSeconds"] > int(settings(file.stem)["SFT_GRACE_SECONDS"])
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        own = {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
        assert own in container["env"]  # a new pod has the old one's name
        for side in container["resources"].values():
            assert "ephemeral-storage" in side
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == volumes.keys()
        assert mounts["shm"] == "/dev/shm"


@pytest.mark.parametrize("way", WAYS)
def test_the_variables_are_settings_and_enough_to_train(way: str, tmp_path: Path) -> None:
    environ = settings(way)
    if document := environ.get("SFT_TRAINER_CONFIG_JSON_PATH"):
        data = next(t["data"] for t in objects(PLAIN[WAYS.index(way)]) if t["kind"] == "ConfigMap")
        (tmp_path / Path(document).name).write_text(data[Path(document).name])
        environ["SFT_TRAINER_CONFIG_JSON_PATH"] = str(tmp_path / Path(document).name)
    loaded = config.load(sources.with_documents(sources.read((), environ)))
    if way == "serve":  # what was trained is in the run
        assert not loaded.axolotl
    else:
        assert not list(of_settings(loaded))


def decision(policy: dict[str, Any], code: int) -> str:
    """What a Job does with a pod that ends with a code: the first rule that matches."""
    for rule in policy["rules"]:
        codes = rule.get("onExitCodes")
        if codes and (code in codes["values"]) == (codes["operator"] == "In"):
            return str(rule["action"])
    return "Count"


POLICIES = [
    one("job", "Job")["spec"],
    one("nodes", "Job")["spec"],
    one("trainjob", "TrainingRuntime")["spec"]["template"]["spec"]["replicatedJobs"][0]["template"][
        "spec"
    ],
]


@pytest.mark.parametrize("job", POLICIES, ids=["job", "nodes", "trainjob"])
def test_a_job_retries_what_the_exit_codes_say_and_nothing_else(job: dict[str, Any]) -> None:
    policy = job["podFailurePolicy"]
    assert job["backoffLimit"] > 0
    assert decision(policy, Exit.STOPPED) == "Ignore"
    for code in range(1, 256):
        again = code in RETRIED or code == 137
        assert (decision(policy, code) == "FailJob") != again, code
    (container,) = job["template"]["spec"]["containers"]
    named = {r["onExitCodes"]["containerName"] for r in policy["rules"] if "onExitCodes" in r}
    assert named == {container["name"]}
    disrupted = {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert disrupted in policy["rules"]


def test_an_operator_restarts_by_exit_code_what_is_worth_it() -> None:
    """Kubeflow's ExitCode retries above 127, which is where the codes worth it are."""
    replicas = one("pytorchjob", "PyTorchJob")["spec"]["pytorchReplicaSpecs"]
    assert {spec["restartPolicy"] for spec in replicas.values()} == {"ExitCode"}
    assert {spec["template"]["spec"]["containers"][0]["name"] for spec in replicas.values()} == {
        "pytorch"
    }
    assert not [code for code in RETRIED if code < 128]


@pytest.mark.parametrize("way", ["nodes", "statefulset"])
def test_the_pods_of_several_nodes_find_each_other(way: str) -> None:
    kind = {"nodes": "Job", "statefulset": "StatefulSet"}[way]
    several, service = one(way, kind), one(way, "Service")
    spec, pod = several["spec"], several["spec"]["template"]
    count = spec.get("completions") or spec["replicas"]
    assert count > 1
    assert (pod["spec"].get("subdomain") or spec["serviceName"]) == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    for rank in range(count):
        own = several["metadata"]["name"]
        said = {"POD_NAME": f"{own}-{rank}"} if way == "statefulset" else {}
        named = {env["name"] for env in pod["spec"]["containers"][0]["env"]}
        assert named - {"POD_UID"} == said.keys()
        if way == "nodes":
            said = {"JOB_COMPLETION_INDEX": str(rank)}
        where, problems = rendezvous.read({**settings(way), **said})
        assert not problems
        assert (where.nodes, where.rank) == (count, rank)
        assert where.address == f"{own}-0.{service['metadata']['name']}"
        assert where.meeting[1] == service["spec"]["ports"][0]["port"]


@pytest.mark.parametrize("way", ["nodes", "statefulset", "pytorchjob", "trainjob"])
def test_several_nodes_share_their_volumes_and_no_machine(way: str) -> None:
    file = ROOT / "templates" / "k8s" / way / f"{way}.yaml"
    claims = [thing for thing in objects(file) if thing["kind"] == "PersistentVolumeClaim"]
    assert {mode for claim in claims for mode in claim["spec"]["accessModes"]} == {"ReadWriteMany"}
    for pod in pods(file):
        rules = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rules[0]["topologyKey"] == "kubernetes.io/hostname"
        assert pod["topologySpreadConstraints"]


def test_a_server_may_start_as_long_as_its_setting_says() -> None:
    (container,) = one("serve", "Deployment")["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed >= OWN["SFT_SERVE_START_SECONDS"].default
    assert settings("serve")["SFT_SERVE_PORT"] == str(container["ports"][0]["containerPort"])


def test_the_claims_that_a_server_mounts_are_those_of_a_training() -> None:
    file = ROOT / "templates" / "k8s" / "job" / "job.yaml"
    made = {t["metadata"]["name"] for t in objects(file) if t["kind"] == "PersistentVolumeClaim"}
    pod = one("serve", "Deployment")["spec"]["template"]["spec"]
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert {claim["claimName"] for claim in claims} == made
    assert settings("serve")["SFT_OUTPUTS_DIR"] == settings("job")["SFT_OUTPUTS_DIR"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not here")
@pytest.mark.parametrize("file", PLAIN, ids=name)
def test_kustomize_makes_what_the_plain_file_says(file: Path) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(file.parent)], capture_output=True, text=True, check=True
    )
    made = {(t["kind"], t["metadata"]["name"]): t for t in yaml.safe_load_all(built.stdout)}
    assert made == {(t["kind"], t["metadata"]["name"]): t for t in objects(file)}
