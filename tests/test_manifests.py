"""templates/k8s as a cluster would take it. No cluster is asked."""

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from envtune.cli.arguments import parser
from envtune.errors import Exit
from envtune.machine import rendezvous
from envtune.runs import lease
from envtune.settings import loading as config
from envtune.settings import sources
from envtune.settings.own import OWN
from tests.harness import ROOT
from tests.manifests import VERSIONS, Unfit, expanded, judge, templates
from tests.unit.builders import of_settings

FILES = sorted((ROOT / "templates" / "k8s").glob("*/*.yaml"))
# What a cluster gets; the other files are read by kustomize.
PLAIN = [file for file in FILES if file.name not in ("kustomization.yaml", "names.yaml")]
STARTED = [file for file in PLAIN if file.stem == file.parent.name]
LINT = YamlLintConfig(
    "{extends: default, rules: {document-start: disable, line-length: "
    "{max: 100, allow-non-breakable-inline-mappings: true}}}"
)
# Maps whose keys are anybody's.
FREE = {"data", "labels", "matchLabels", "requests", "limits", "selector"}
COORDINATOR = "jobset.sigs.k8s.io/coordinator"
CLAIM = "PersistentVolumeClaim"
# What README.md says is worth a retry.
RETRIED = {Exit.STOPPED, Exit.DISK, Exit.NETWORK, Exit.HARDWARE, Exit.BUG}


def name(file: Path) -> str:
    return f"{file.parent.name}-{file.stem}"


def objects(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def started(way: str) -> Path:
    return ROOT / "templates" / "k8s" / way / f"{way}.yaml"


def one(way: str, kind: str) -> dict[str, Any]:
    """The only object of a kind in a file."""
    (found,) = [thing for thing in objects(started(way)) if thing["kind"] == kind]
    return found


def of_pods(way: str) -> list[dict[str, Any]]:
    """Every pod that a file would start: itself, or its template."""
    things = objects(started(way))
    whole = [thing for thing in things if thing["kind"] == "Pod"]
    found = whole + [found for thing in things for found in templates(thing)]
    assert found
    return found


def pods(way: str) -> list[dict[str, Any]]:
    return [pod["spec"] for pod in of_pods(way)]


def labels_of_pods(way: str) -> list[dict[str, str]]:
    return [pod["metadata"]["labels"] for pod in of_pods(way)]


def settings(way: str) -> dict[str, str]:
    """The variables that the container gets."""
    (source,) = {pod["containers"][0]["envFrom"][0]["configMapRef"]["name"] for pod in pods(way)}
    maps = [thing for thing in objects(started(way)) if thing["kind"] == "ConfigMap"]
    (data,) = [thing["data"] for thing in maps if thing["metadata"]["name"] == source]
    return dict(data)


SEVERAL = ("nodes", "jobset", "statefulset", "pytorchjob", "trainjob")
TRAINS = ("pod", "job", *SEVERAL)
# Carry files for others: no GPU, no claim of their own.
CARRY = ("data", "files")


def test_there_is_a_file_for_each_way() -> None:
    assert {file.stem for file in STARTED} == {*TRAINS, *CARRY, "serve", "monitor"}
    assert {file.parent.name for file in PLAIN if file.name == "claims.yaml"} == set(TRAINS)


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
    head, start, body = text.partition("apiVersion: ")
    changed = list(yaml.safe_load_all(start + body))
    assert head.count("#") == len(head.splitlines()), head
    for thing in changed:
        judge(thing)
        for pod in (found["spec"] for found in templates(thing)):
            assert {"tolerations", "imagePullSecrets"} <= pod.keys()
    assert len(changed) == len(objects(file))


@pytest.mark.parametrize("way", TRAINS)
def test_what_is_deleted_with_a_training_is_not_its_results(way: str) -> None:
    """`kubectl delete -f` of the one file, and the other one says what it takes with it."""
    folder = ROOT / "templates" / "k8s" / way
    assert not [t for t in objects(folder / f"{way}.yaml") if t["kind"] == CLAIM]
    assert {t["kind"] for t in objects(folder / "claims.yaml")} == {CLAIM}
    assert "to delete the results" in (folder / "claims.yaml").read_text()


@pytest.mark.parametrize("way", [*TRAINS, *CARRY, "serve"])
def test_every_pod_is_confined_and_its_grace_is_longer_than_the_runs(way: str) -> None:
    for pod in pods(way):
        (container,) = pod["containers"]
        assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False
        grace = settings(way).get("SFT_GRACE_SECONDS", "110")
        assert pod["terminationGracePeriodSeconds"] > int(grace)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        own = {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
        assert own in container["env"]  # a new pod has the old one's name
        for side in container["resources"].values():
            assert "ephemeral-storage" in side
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (way not in CARRY)


@pytest.mark.parametrize("way", [*TRAINS, "serve"])
def test_what_has_a_gpu_has_shared_memory_and_only_reads_the_data(way: str) -> None:
    for pod in pods(way):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert mounts["shm"]["mountPath"] == "/dev/shm"
        assert mounts["data"] == {"name": "data", "mountPath": "/data", "readOnly": True}


@pytest.mark.parametrize("way", TRAINS)
def test_a_training_that_hangs_is_started_again_by_its_own_word(way: str) -> None:
    """`envtune health` says that a process has been silent for a minute; it may stay so for
    nine more, as where a volume hangs."""
    for pod in pods(way):
        probe = pod["containers"][0]["livenessProbe"]
        assert probe["exec"] == {"command": ["envtune", "health"]}
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 10 * lease.STALE
        assert probe["timeoutSeconds"] >= 30  # Python starts beside a training


@pytest.mark.parametrize("way", [*TRAINS, "serve"])
def test_nothing_reaches_a_pod_but_its_own_run_or_what_it_serves(way: str) -> None:
    policy = one(way, "NetworkPolicy")["spec"]
    own = policy["podSelector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress"]
    expected: list[dict[str, Any]] = []
    if way in SEVERAL:  # on any port: the engines take whichever is free
        expected = [{"from": [{"podSelector": {"matchLabels": own}}]}]
    elif way == "serve":
        expected = [{"ports": [{"port": "http"}]}]
    assert policy["ingress"] == expected
    for labels in labels_of_pods(way):
        assert own.items() <= labels.items()


@pytest.mark.parametrize("way", [*TRAINS, "serve"])
def test_the_variables_are_settings_and_enough_to_train(way: str, tmp_path: Path) -> None:
    environ = settings(way)
    if document := environ.get("SFT_TRAINER_CONFIG_JSON_PATH"):
        data = next(t["data"] for t in objects(started(way)) if t["kind"] == "ConfigMap")
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


def replicated(spec: dict[str, Any]) -> dict[str, Any]:
    """The Job of a JobSet."""
    return dict(spec["replicatedJobs"][0]["template"]["spec"])


POLICIES = {
    "job": one("job", "Job")["spec"],
    "nodes": one("nodes", "Job")["spec"],
    "data": one("data", "Job")["spec"],
    "jobset": replicated(one("jobset", "JobSet")["spec"]),
    "trainjob": replicated(one("trainjob", "TrainingRuntime")["spec"]["template"]["spec"]),
}


@pytest.mark.parametrize("way", POLICIES)
def test_a_job_retries_what_the_exit_codes_say_and_nothing_else(way: str) -> None:
    job = POLICIES[way]
    policy = job["podFailurePolicy"]
    assert (job["backoffLimit"] > 0) == (way != "jobset")  # which starts all nodes again
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


def test_a_jobset_starts_again_unless_its_job_says_that_no_start_helps() -> None:
    policy = one("jobset", "JobSet")["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (rule,) = policy["rules"]
    # What a Job calls it when its podFailurePolicy says FailJob.
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert rule["action"] == "FailJobSet"


def test_an_operator_restarts_by_exit_code_what_is_worth_it() -> None:
    """Kubeflow's ExitCode retries above 127, which is where the codes worth it are."""
    replicas = one("pytorchjob", "PyTorchJob")["spec"]["pytorchReplicaSpecs"]
    assert {spec["restartPolicy"] for spec in replicas.values()} == {"ExitCode"}
    assert {spec["template"]["spec"]["containers"][0]["name"] for spec in replicas.values()} == {
        "pytorch"
    }
    assert not [code for code in RETRIED if code < 128]


def coordinator(jobset: dict[str, Any]) -> str:
    """What JobSet says of where node 0 is: the pod's host name and the Service that it makes,
    which has the JobSet's name."""
    spec, own = jobset["spec"], jobset["metadata"]["name"]
    at = spec["coordinator"]
    (job,) = spec["replicatedJobs"]
    assert at["replicatedJob"] == job["name"]
    return f"{own}-{job['name']}-{at['jobIndex']}-{at['podIndex']}.{own}"


@pytest.mark.parametrize("way", ["nodes", "statefulset", "jobset"])
def test_the_pods_of_several_nodes_find_each_other(way: str) -> None:
    owner = one(way, {"nodes": "Job", "statefulset": "StatefulSet", "jobset": "JobSet"}[way])
    own = owner["metadata"]["name"]
    spec = replicated(owner["spec"]) if way == "jobset" else owner["spec"]
    (pod,) = of_pods(way)
    count = spec.get("completions") or spec["replicas"]
    assert count > 1
    for rank in range(count):
        fields = {"metadata.name": f"{own}-{rank}"}
        if way == "jobset":
            fields[f"metadata.annotations['{COORDINATOR}']"] = coordinator(owner)
        numbered = {} if way == "statefulset" else {"JOB_COMPLETION_INDEX": str(rank)}
        where, problems = rendezvous.read({**settings(way), **expanded(pod, **fields), **numbered})
        assert not problems
        assert (where.nodes, where.rank) == (count, rank)
        assert where.address == (coordinator(owner) if way == "jobset" else f"{own}-0.{own}")
        if way != "jobset":  # it makes its Service itself
            service = one(way, "Service")
            assert where.address.endswith(f".{service['metadata']['name']}")
            assert where.meeting[1] == service["spec"]["ports"][0]["port"]
    if way != "jobset":
        subdomain = pod["spec"].get("subdomain") or spec["serviceName"]
        assert subdomain == service["metadata"]["name"]
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("way", SEVERAL)
def test_several_nodes_share_their_volumes_and_no_machine(way: str) -> None:
    claims = objects(ROOT / "templates" / "k8s" / way / "claims.yaml")
    assert {mode for claim in claims for mode in claim["spec"]["accessModes"]} == {"ReadWriteMany"}
    for pod in of_pods(way):
        spec, labels = pod["spec"], pod["metadata"]["labels"]
        (rule,) = spec["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert rule["topologyKey"] == "kubernetes.io/hostname"
        assert rule["labelSelector"]["matchLabels"] == labels
        (spread,) = spec["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == labels


def test_a_server_may_start_as_long_as_its_setting_says() -> None:
    (container,) = one("serve", "Deployment")["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed >= OWN["SFT_SERVE_START_SECONDS"].default
    assert settings("serve")["SFT_SERVE_PORT"] == str(container["ports"][0]["containerPort"])


def test_a_server_needs_a_key_and_its_probes_none() -> None:
    (container,) = one("serve", "Deployment")["spec"]["template"]["spec"]["containers"]
    (key,) = [
        v["valueFrom"]["secretKeyRef"] for v in container["env"] if v["name"] == "VLLM_API_KEY"
    ]
    assert key == {"name": "envtune", "key": "VLLM_API_KEY"}, "not optional"
    assert {c["httpGet"]["path"] for n, c in container.items() if n.endswith("Probe")} == {
        "/health"
    }


@pytest.mark.parametrize("way", [*TRAINS, "serve"])
def test_a_monitor_reads_each_kind_of_pod_by_its_ports_name_and_with_its_secret(way: str) -> None:
    """And puts the labels of the run on what it reads."""
    monitors = [t for t in objects(started("monitor")) if t["kind"] == "PodMonitor"]
    for labels, pod in zip(labels_of_pods(way), pods(way), strict=True):
        (monitor,) = (
            m["spec"] for m in monitors
            if m["spec"]["selector"]["matchLabels"].items() <= labels.items()
        )  # fmt: skip
        (container,) = pod["containers"]
        (endpoint,) = monitor["podMetricsEndpoints"]
        assert [port["name"] for port in container["ports"]] == [endpoint["port"]]
        assert set(monitor["podTargetLabels"]) <= labels.keys()
        key = endpoint["authorization"]["credentials"]
        assert key["key"] == ("VLLM_API_KEY" if way == "serve" else "STATUS_TOKEN")
        assert key["name"] in {
            source.get("secretRef", {}).get("name") for source in container["envFrom"]
        }


def test_a_training_is_reached_at_its_port_for_figures_by_who_applies_the_monitor_alone() -> None:
    (opened,) = (t["spec"] for t in objects(started("monitor")) if t["kind"] == "NetworkPolicy")
    assert opened["ingress"] == [{"ports": [{"port": "status"}]}]
    for way in TRAINS:
        for labels in labels_of_pods(way):
            assert opened["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("way", [*TRAINS, *CARRY, "serve"])
def test_the_claims_that_a_pod_mounts_are_those_of_a_training(way: str) -> None:
    made = {t["metadata"]["name"] for t in objects(started("job").with_name("claims.yaml"))}
    for pod in pods(way):
        claims = [
            v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v
        ]
        assert {claim["claimName"] for claim in claims} == made


def test_a_server_looks_where_a_training_writes() -> None:
    assert settings("serve")["SFT_OUTPUTS_DIR"] == settings("job")["SFT_OUTPUTS_DIR"]


def test_what_carries_files_runs_what_there_is() -> None:
    """Data of a store by a verb, and the hands that wait by what autorun.sh calls idle."""
    (container,) = pods("data")[0]["containers"]
    said = settings("data")
    words = [said[word[2:-1]] if word.startswith("$(") else word for word in container["args"]]
    assert words[0] == "envtune"
    args = parser().parse_args(words[1:])
    assert (args.verb, args.source, str(args.folder)) == ("copy", "s3://my-bucket/rows", "/data")
    (container,) = pods("files")[0]["containers"]
    assert container["args"] == ["idle"]
    assert pods("files")[0]["activeDeadlineSeconds"] > 0
