"""compose.yaml as docker compose reads it. No engine is asked."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from envtune.settings.own import OWN
from tests.harness import ROOT, clean_environ
from tests.unit.builders import load, of_settings

COMPOSE = Path(sys.executable).parent / "docker-compose"
MODEL = {"AXOLOTL_BASE_MODEL": "acme/tiny"}
DATA = {"AXOLOTL_DATASETS": '[{"path": "/data/rows.jsonl", "type": "alpaca"}]'}
TRAINS = ("train", "train-cpu")
SERVES = ("serve", "serve-cpu")
BESIDE = ("tensorboard", "mlflow", "open-webui", "logs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    return tmp_path


def services(folder: Path, env: str = "") -> dict[str, Any]:
    """Every service as docker compose would start it with this .env."""
    (folder / ".env").write_text(env)
    done = subprocess.run(
        [COMPOSE, "--profile", "*", "config", "--format", "json"],
        cwd=folder, env=clean_environ(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not done.stderr
    return dict(json.loads(done.stdout)["services"])


def seconds(duration: str) -> int:
    """Of a duration such as 2m0s."""
    minutes, _, rest = duration.rpartition("m")
    return int(minutes or 0) * 60 + int(rest.removesuffix("s"))


def test_each_profile_is_one_service_and_what_reads_docker_for_it(folder: Path) -> None:
    found = services(folder)
    profiles = {name: [name] for name in (*TRAINS, *SERVES, *BESIDE)}
    assert {name: service["profiles"] for name, service in found.items()} == {
        **profiles, "logs-of-docker": ["logs"],
    }  # fmt: skip


@pytest.mark.parametrize("grace", [None, "25", "600"])
def test_docker_waits_longer_than_the_run_takes_to_stop(folder: Path, grace: str | None) -> None:
    for name in (*TRAINS, *SERVES):
        service = services(folder, f"SFT_GRACE_SECONDS={grace}\n" if grace else "")[name]
        told = int(service["environment"]["SFT_GRACE_SECONDS"])
        assert told == int(grace or 110)
        assert seconds(service["stop_grace_period"]) == told + 10


def test_the_cpu_asks_for_no_gpu_and_the_gpu_for_all(folder: Path) -> None:
    found = services(folder)
    for name in (*TRAINS, *SERVES):
        assert ("gpus" in found[name]) == (not name.endswith("-cpu"))
        assert found[name]["image"] == ("envtune:cpu" if name.endswith("-cpu") else "envtune:cuda")
    assert found["train-cpu"]["environment"]["SFT_DEVICE"] == "cpu"
    assert found["serve-cpu"]["environment"]["VLLM_TARGET_DEVICE"] == "cpu"


def test_what_listens_is_reached_from_this_machine_alone(folder: Path) -> None:
    found = services(folder, "SFT_SERVE_PORT=9000\n")
    assert not [name for name in TRAINS if "ports" in found[name]]
    ports = [port for service in found.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    for name in SERVES:
        (port,) = found[name]["ports"]
        assert (port["target"], port["published"]) == (9000, "9000")
        assert found[name]["environment"]["SFT_SERVE_PORT"] == "9000"
        assert found[name]["environment"]["SFT_SERVE_HOST"] == "0.0.0.0"


def test_every_service_is_confined_and_writes_to_volumes_and_tmp_alone(folder: Path) -> None:
    for name, service in services(folder).items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service
        assert not service.get("privileged")
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("read_only", False) is (name != "open-webui")
        tmp, *more = service["tmpfs"]
        assert more == (["/run:mode=1777"] if name == "logs-of-docker" else [])
        path, _, options = tmp.partition(":")
        assert path == service["environment"]["HOME"] == "/tmp"
        assert {"mode=1777", "exec"} == set(options.split(","))  # Docker's own has noexec
        read_only = {v["target"] for v in service["volumes"] if v.get("read_only")}
        assert read_only <= {"/data", "/var/run/docker.sock"}
        for key in ("SFT_OUTPUTS_DIR", "SFT_LOGS_DIR"):
            if place := service["environment"].get(key):
                assert place.startswith("/workspace/")


KEY = "planted-5e1f0c77aa"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


def test_every_image_can_be_named_by_its_digest(folder: Path) -> None:
    names = {
        "IMAGE": "envtune", "IMAGE_CPU": "envtune-cpu", "MLFLOW_IMAGE": "mlflow",
        "OPEN_WEBUI_IMAGE": "open-webui", "DOZZLE_IMAGE": "dozzle", "DOCKER_PROXY_IMAGE": "proxy",
    }  # fmt: skip
    env = "".join(f"{key}=registry.example.com/{name}@{DIGEST}\n" for key, name in names.items())
    images = {service["image"] for service in services(folder, env).values()}
    assert images == {f"registry.example.com/{name}@{DIGEST}" for name in names.values()}


def test_every_image_of_others_has_a_tag_that_does_not_move(folder: Path) -> None:
    images = {n: s["image"] for n, s in services(folder).items() if "build" not in s}
    assert images.keys() == {"mlflow", "open-webui", "logs", "logs-of-docker"}
    for name, image in images.items():
        assert re.search(r":v\d+\.\d+\.\d+\Z", image), name


def test_the_chat_page_asks_whichever_serves_with_its_key(folder: Path) -> None:
    found = services(folder, f"SFT_SERVE_PORT=9000\nVLLM_API_KEY={KEY}\n")
    page = found["open-webui"]["environment"]
    assert (page["OPENAI_API_BASE_URL"], page["OPENAI_API_KEY"]) == ("http://vllm:9000/v1", KEY)
    for name in SERVES:
        assert found[name]["networks"]["default"]["aliases"] == ["vllm"]
        assert found[name]["environment"]["VLLM_API_KEY"] == KEY
    (port,) = found["open-webui"]["ports"]
    assert (port["target"], port["published"]) == (8080, "3000")
    own = {n for n, v in page.items() if n.endswith("_GENERATION") and v == "false"}
    assert len(own) == 4, "a tuned model is asked what it was not trained on"


def test_dockers_socket_is_read_by_a_proxy_that_nobody_else_reaches(folder: Path) -> None:
    found = services(folder)
    sockets = {n for n, s in found.items() for v in s["volumes"] if "docker.sock" in v["target"]}
    assert sockets == {"logs-of-docker"}
    proxy, viewer = found["logs-of-docker"], found["logs"]
    assert (proxy["environment"]["POST"], list(proxy["networks"])) == ("0", ["docker"])
    assert "ports" not in proxy
    assert {n for n, s in found.items() if "docker" in s["networks"]} == {"logs", "logs-of-docker"}
    assert viewer["environment"]["DOZZLE_REMOTE_HOST"] == "tcp://logs-of-docker:2375"


def test_nobody_is_root_and_nothing_is_started_again(folder: Path) -> None:
    found = services(folder, "USER_ID=12345\n")
    for name in (*TRAINS, *SERVES):
        assert found[name]["user"] == "12345:0"
        assert found[name]["restart"] == "no"
        assert int(found[name]["shm_size"]) == 8 * 2**30


@pytest.mark.parametrize("quote", ["", "'"])
def test_the_variables_of_the_file_reach_the_container_as_settings(
    folder: Path, quote: str
) -> None:
    """Also values with spaces and quotes, as docker run reads them and as a shell would."""
    lines = [f"{name}={quote}{value}{quote}" for name, value in {**MODEL, **DATA}.items()]
    environ = services(folder, "\n".join([*lines, "SFT_LOGS_DIR=/workspace/elsewhere"]))["train"][
        "environment"
    ]
    assert environ.items() >= {**MODEL, **DATA, "SFT_LOGS_DIR": "/workspace/elsewhere"}.items()
    assert not list(of_settings(load(environ)))


def test_the_example_of_an_environment_can_be_the_file(folder: Path) -> None:
    environ = services(folder, (ROOT / "env.example").read_text())["train"]["environment"]
    assert not list(of_settings(load(environ)))
    assert {name for name in environ if name.startswith("SFT_")} <= OWN.keys()


def test_a_folder_can_take_the_place_of_the_volume(folder: Path) -> None:
    volumes = services(folder, "WORKSPACE=./mine\n")["train"]["volumes"]
    assert {(v["type"], v["target"], v.get("read_only", False)) for v in volumes} == {
        ("bind", "/workspace", False),
        ("bind", "/data", True),
    }
    volumes = services(folder)["train"]["volumes"]
    assert ("volume", "/workspace") in {(v["type"], v["target"]) for v in volumes}
