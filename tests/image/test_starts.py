"""What a container says and shows before and beside any training."""

import json
import os
import re
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.image.containers import (
    ENGINE,
    ENVIRON,
    HOME,
    IMAGE,
    Container,
    Ended,
    as_root,
    engine,
)


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22 03:20:29,120 WARNING this",
        "[2026-11-22 03:20:29,120] [WARNING] [axolotl.utils] this",
        "(EngineCore pid=7) ERROR 11-22 03:20:29 [core.py:1] this",
        "[rank0]:[W1122 03:20:29.120 socket.cpp:767] this",
        "W1122 03:20:29.120 140 torch/this.py:7] this",
        "/opt/envtune/this.py:7: UserWarning: this",
        "Traceback (most recent call last):",
    ],
)
def test_a_complaint_is_heard_on_both_streams_in_every_form(line: str) -> None:
    said = f"2026-11-22 03:20:29,120 INFO well\n{line}\n"
    assert Ended(0, said, "").told == Ended(0, "", said).told == [line]


def test_alone_it_tells_how_it_is_used_by_a_command_that_works(
    demo: dict[str, str], flavor: str
) -> None:
    """The example is taken as it is printed, but for the model, the data and the GPU."""
    for words in [], ["envtune"]:
        ended = Container(command=words).run()
        assert ended.code == 1
        said = ended.out + ended.err
        assert f"docker run {'--gpus all ' if flavor == 'cuda' else ''}--shm-size" in said
    example = said[said.index("docker run") : said.index("\nor ")].replace("--gpus all ", "")
    words = shlex.split(example)[2:-1]
    given = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-e")
    rows = [{"path": demo["AXOLOTL_DATASETS__0__PATH"], "type": "chat_template"}]
    assert json.loads(given["AXOLOTL_DATASETS"])[0].keys() == rows[0].keys()
    given |= {
        "AXOLOTL_BASE_MODEL": demo["AXOLOTL_BASE_MODEL"],
        "AXOLOTL_DATASETS": json.dumps(rows),
    }
    flags = words[: words.index("-v")]
    check = ["envtune", "check"]
    ended = Container(given | {"SFT_DEVICE": "cpu"}, flags=flags, command=check).run()
    assert ended.code == 0, ended.err


def test_help_and_version_of_what_is_inside() -> None:
    assert "VERB" in Container(command=["--help"]).run().out
    told = Container(command=["--version"], flags=["--network", "none"]).run()
    assert told.code == 0
    assert re.search(r"^axolotl 0\.19\.0$", told.out, re.MULTILINE)


def test_any_other_command_runs_untouched_in_the_environment() -> None:
    ended = Container(command=["bash", "-c", "id -u; echo $HOME; which envtune tensorboard"]).run()
    assert ended.out.split() == [
        "0" if as_root() else "10001", "/home/envtune", f"{HOME}/.venv/bin/envtune", f"{HOME}/.venv/bin/tensorboard",
    ]  # fmt: skip


def test_each_environment_has_envtune_and_its_engine() -> None:
    for folder, engines in (".venv", "axolotl, torch, trl"), (".venv-serve", "vllm"):
        asked = ["-c", f"import importlib.metadata as m; m.version('envtune'); import {engines}"]
        ended = Container(
            {"HF_HUB_OFFLINE": "1"}, command=[f"{HOME}/{folder}/bin/python", "-W", "ignore", *asked]
        ).run(asked=".")
        assert ended.code == 0, ended.err


def test_the_values_of_an_env_file_keep_their_spaces_and_quotes(
    tmp_path: Path, demo: dict[str, str]
) -> None:
    file = tmp_path / "job.env"
    rows = f'[{{"path": "{HOME}/demo/instructions.jsonl", "type": "chat_template"}}]'
    lines = {**demo, "AXOLOTL_DATASETS": rows, "AXOLOTL_WANDB_NAME": 'two  words, "quoted"'}
    del lines["AXOLOTL_DATASETS__0__PATH"]
    file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    ended = Container(flags=["--env-file", str(file)], command=["envtune", "check"]).run()
    assert ended.code == 0, ended.err
    assert 'two  words, "quoted"' in ended.out
    file.write_text(file.read_text().replace("5e-3", '"5e-3"'))
    ended = Container(flags=["--env-file", str(file)], command=["envtune", "check"]).run(
        asked="AXOLOTL_LEARNING_RATE is wrapped in quotes, which --env-file keeps; taken without"
    )
    assert ended.code == 0, ended.err
    assert "0.005" in ended.out


def test_idle_is_well_and_shells_have_the_containers_variables(idle: Container) -> None:
    _is_healthy(idle)
    assert "no run yet" in idle.exec("envtune", "health").stdout
    login = idle.exec("bash", "-lc", "echo $HF_TOKEN; command -v envtune").stdout
    assert login.split()[:2] == ["hf_" + "x" * 34, f"{HOME}/.venv/bin/envtune"]


def _is_healthy(container: Container) -> None:
    """By Docker's own checks, every 30 s; podman has nobody who makes them without systemd."""
    if ENGINE[0] == "podman":
        result = engine("healthcheck", "run", container.name)
        assert result.returncode == 0, result.stdout
        return
    status, deadline = "starting", time.monotonic() + 300
    while status == "starting" and time.monotonic() < deadline:
        time.sleep(1)
        asked = "{{.State.Health.Status}}"
        status = engine("inspect", "--format", asked, container.name).stdout.strip()
    assert status == "healthy"


def test_the_next_command_that_is_printed_works_as_it_is_printed(demo: dict[str, str]) -> None:
    with Container({**demo, "AXOLOTL_MAX_STEPS": "2"}, command=["idle"]).started() as container:
        told = container.until(lambda said: "next:" in said)
        trained = container.exec("bash", "-c", _after("next: ", told))
        assert trained.returncode == 0, trained.stderr
        assert " is done: " in container.exec("envtune", "welcome").stdout
        pages = re.findall(r"/\S+\.md", told + container.exec("envtune").stdout)
        assert len(pages) == 2
        shown = container.exec("cat", *pages)
        assert shown.returncode == 0, shown.stderr


def _after(word: str, text: str) -> str:
    return next(line.split(word, 1)[1] for line in text.splitlines() if word in line)


def test_a_volume_on_a_part_of_workspace_gets_runs_and_caches(demo: dict[str, str]) -> None:
    flags = ["--tmpfs", "/workspace/data:mode=1777"]
    with Container(demo, flags=flags, command=["idle"]).started() as container:
        told = container.until(lambda said: "next:" in said)
        assert "no run yet below /workspace/data/outputs" in told
        where = container.exec("bash", "-lc", "echo $XDG_CACHE_HOME $TRITON_CACHE_DIR").stdout
        assert where.split() == ["/workspace/data/.cache", "/workspace/data/.cache/triton"]


def test_nothing_listens_by_default() -> None:
    """A network of its own, in which whatever listens can only be the container's."""
    with Container(command=["idle"], flags=["--network", "none"]).started() as container:
        container.until(lambda said: "next:" in said)
        sockets = container.exec(
            "bash", "-c", "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp"
        ).stdout
        assert "local_address" in sockets
        assert len([line for line in sockets.splitlines() if "local_address" not in line]) == 0


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Has a client of OpenSSH ask a container, as the owner of `key` or of `other`."""
    for name in "key", "other":
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name]
        subprocess.run(words, check=True)
    port = str(_free_port())
    environ = {"PUBLIC_KEY": (tmp_path / "key.pub").read_text(), "SSH_PORT": port}
    options = [
        "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", f"Port={port}",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
    ]  # fmt: skip

    def run(program: str, *words: str, key: str = "key", typed: str = "") -> Any:
        command = [program, *options, "-i", str(tmp_path / key), *words]
        return subprocess.run(command, input=typed, capture_output=True, text=True, check=False)

    environ["SECRET_OF_THE_RUN"] = "known to shells"
    flags = ["--network", "host"]
    with Container(environ, command=["idle"], flags=flags).started() as container:
        container.until(lambda said: "next:" in said)
        yield run


def _there() -> str:
    return f"{'root' if as_root() else 'envtune'}@127.0.0.1"


def test_sshd_opens_for_the_owner_of_the_key_alone(ask: Ask) -> None:
    assert ask("ssh", _there(), "true").returncode == 0
    refused = ask("ssh", _there(), "true", key="other")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_a_command_by_ssh_is_where_the_run_is_and_has_its_variables(ask: Ask) -> None:
    look = "pwd; echo $SECRET_OF_THE_RUN; command -v envtune"
    wanted = ["/workspace", "known to shells", f"{HOME}/.venv/bin/envtune"]
    for words, typed in ([look], ""), ([], look):
        told = ask("ssh", _there(), *words, typed=typed)
        assert told.stdout.splitlines() == wanted, told.stderr
    assert ask("ssh", _there(), "bash -c 'exit 7'").returncode == 7
    health = ask("ssh", _there(), "envtune health")
    assert "no run yet" in health.stdout, health.stderr


def test_a_terminal_by_ssh_is_told_how_the_run_stands(ask: Ask) -> None:
    told = ask("ssh", "-tt", _there(), typed="exit\n")
    assert "no run yet below /workspace/outputs" in told.stdout, told.stderr


def test_files_come_and_go_by_scp_and_sftp(ask: Ask, tmp_path: Path) -> None:
    rows, back = tmp_path / "rows.jsonl", tmp_path / "back"
    rows.write_text('{"text": "a"}\n')
    for protocol in [], ["-O"]:
        sent = ask("scp", *protocol, str(rows), f"{_there()}:data.jsonl")
        assert sent.returncode == 0, sent.stderr
        got = ask("scp", *protocol, f"{_there()}:/workspace/data.jsonl", str(back))
        assert got.returncode == 0, got.stderr
        assert back.read_text() == rows.read_text()
        back.unlink()
        assert ask("ssh", _there(), "rm data.jsonl").returncode == 0
    listed = ask("sftp", "-b", "-", _there(), typed=f"put {rows} data.jsonl\nls\n")
    assert "data.jsonl" in listed.stdout.splitlines()[-1], listed.stderr


def test_jupyter_opens_for_the_password_alone() -> None:
    port, password = _free_port(), "a password of the test"
    environ = {"JUPYTER_PASSWORD": password, "JUPYTER_PORT": str(port)}
    flags = ["--network", "host"]
    with Container(environ, command=["idle"], flags=flags).started() as container:
        url = f"http://127.0.0.1:{port}/api/contents"
        asked = _status(url, 300)
        assert asked == 403
        assert _status(f"{url}?token={quote(password)}") == 200
        processes = container.exec("bash", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        assert "jupyter" in processes
        assert password not in processes


def _status(url: str, seconds: float = 0) -> int:
    """What is answered, by somebody who may first have to start."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return int(urllib.request.urlopen(url).status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_the_image_says_what_it_is_and_who_it_runs_as() -> None:
    wanted = (
        '{{index .Config.Labels "org.opencontainers.image.version"}} {{.Config.User}} '
        "{{.Config.StopSignal}} {{.Config.WorkingDir}} {{json .Config.Entrypoint}}"
    )
    told = engine("image", "inspect", "--format", wanted, IMAGE).stdout.split(maxsplit=4)
    user = "0:0" if as_root() else "10001:0"
    assert told[:4] == ["0.1.0", user, "SIGTERM", "/workspace"]
    assert "tini" in told[4]


def test_neither_the_history_nor_a_file_holds_a_secret() -> None:
    """Keys, tokens, the machine's own settings of pip, and what lay beside the Dockerfile. What
    has to be found shows that the search was made."""
    history = engine("history", "--no-trunc", IMAGE).stdout
    assert "scripts/environments.sh" in history
    assert not re.search(r"(?i)token=|password=|hf_[A-Za-z0-9]{20}|PRIVATE KEY", history)
    look = (
        "ls -d /etc/pip.conf /root/.pip /root/.config /root/.cache /etc/ssh/ssh_host_* /opt/envtune/.env "
        "/opt/envtune/.git /opt/envtune/tests /opt/envtune/.uv /etc/os-release 2> /dev/null; "
        "grep -rlE 'BEGIN (RSA |OPENSSH |EC )?PRIVATE KEY|hf_[A-Za-z0-9]{30}|^start_sshd' /etc /home "
        "/root /opt/envtune/src /opt/envtune/scripts /workspace"
    )
    found = Container(flags=["--user", "0", "--entrypoint", "bash"], command=["-c", look]).run()
    assert found.out.split() == ["/etc/os-release", f"{HOME}/scripts/shells.sh"]


@pytest.mark.skipif("PLANTED_SECRET" not in os.environ, reason="CI plants one for the build")
@pytest.mark.skipif(os.getuid() != 0, reason="only root may read the layers of an image")
def test_a_secret_of_the_build_is_in_no_layer_and_in_no_step() -> None:
    """It lay in .env beside the Dockerfile, and in the environment of whoever built. A layer
    keeps what a later one removes. A word of the code's is looked for with it, and has to be
    found."""
    planted, control = os.environ["PLANTED_SECRET"], "start_sshd() {"
    assert planted
    assert planted not in engine("history", "--no-trunc", IMAGE).stdout
    told = engine("image", "inspect", IMAGE).stdout
    assert planted not in told
    [image] = json.loads(told)
    data = image.get("GraphDriver", {}).get("Data") or {}
    if "UpperDir" not in data:
        pytest.skip("this engine's storage is not overlay's, with a folder for each layer")
    layers = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]
    assert len(layers) == len(image["RootFS"]["Layers"])
    found = subprocess.run(
        ["grep", "-rohF", "-D", "skip", "-f", "-", *layers],
        input=f"{planted}\n{control}",
        env={**ENVIRON, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.stdout.splitlines(), found.stderr) == ([control], "")


def test_code_lies_where_nobody_mounts_and_only_root_may_change_it() -> None:
    look = ["find", HOME, "!", "-type", "l", "-writable", "-print", "-quit"]
    found = {
        user: Container(flags=["--user", user], command=look).run() for user in ("10001:0", "0:0")
    }
    assert [ended.code for ended in found.values()] == [0, 0]
    assert [ended.out for ended in found.values()] == ["", f"{HOME}\n"]


# What of Debian's own runs as root: bookworm-slim's, and OpenSSH's.
SETUID = {
    *(f"/usr/bin/{name}" for name in ("chfn", "chsh", "gpasswd", "mount", "newgrp", "passwd", "su", "umount")),
    "/usr/lib/openssh/ssh-keysign",
}  # fmt: skip


def test_no_program_runs_as_root_but_debians_own() -> None:
    look = ["find", "/", "-xdev", "-type", "f", "-perm", "-4000"]
    found = Container(flags=["--user", "0:0"], command=look).run().out.split()
    assert set(found) == SETUID
