"""What a container says and shows before and beside any training."""

import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.image.containers import ENGINE, ENVIRON, HOME, IMAGE, Container, as_root, engine


def test_alone_it_tells_how_it_is_used() -> None:
    for words in [], ["envtune"]:
        ended = Container(command=words).run()
        assert ended.code == 1
        assert "AXOLOTL_BASE_MODEL" in ended.out + ended.err


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
        asked="QUOTES|'\"5e-3\"'"
    )
    assert ended.code == 1
    assert "AXOLOTL_LEARNING_RATE" in ended.err


def test_idle_is_well_and_shells_have_the_containers_variables(idle: Container) -> None:
    result = engine("healthcheck", "run", idle.name)
    assert result.returncode == 0, result.stdout
    assert "no run yet" in idle.exec("envtune", "health").stdout
    login = idle.exec("bash", "-lc", "echo $HF_TOKEN; command -v envtune").stdout
    assert login.split()[:2] == ["hf_" + "x" * 34, f"{HOME}/.venv/bin/envtune"]


def test_nothing_listens_by_default() -> None:
    """A network of its own, in which whatever listens can only be the container's."""
    container = Container(command=["idle"], flags=["--network", "none"]).start()
    try:
        container.until(lambda said: "next:" in said)
        sockets = container.exec(
            "bash", "-c", "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp"
        ).stdout
        assert "local_address" in sockets
        assert len([line for line in sockets.splitlines() if "local_address" not in line]) == 0
    finally:
        container.remove()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_sshd_opens_for_the_owner_of_the_key_alone(tmp_path: Path) -> None:
    key, other, port = tmp_path / "key", tmp_path / "other", _free_port()
    for path in key, other:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    environ = {"PUBLIC_KEY": (tmp_path / "key.pub").read_text(), "SSH_PORT": str(port)}
    container = Container(
        {**environ, "SECRET_OF_THE_RUN": "known to shells"},
        command=["idle"], flags=["--network", "host"],
    ).start()  # fmt: skip
    try:
        container.until(lambda said: "next:" in said)
        ssh = [
            "ssh",
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]
        ask = ["-o", "BatchMode=yes", "-p", str(port), "envtune@127.0.0.1"]
        shell = "bash -lc 'echo $SECRET_OF_THE_RUN; command -v envtune'"
        result = subprocess.run(
            [*ssh, "-i", key, *ask, shell], capture_output=True, text=True, check=False
        )
        assert result.stdout.splitlines() == ["known to shells", f"{HOME}/.venv/bin/envtune"], (
            result.stderr
        )
        refused = subprocess.run(
            [*ssh, "-i", other, *ask, "true"], capture_output=True, check=False
        )
        assert refused.returncode == 255
    finally:
        container.remove()


def test_jupyter_opens_for_the_password_alone() -> None:
    port, password = _free_port(), "a password of the test"
    environ = {"JUPYTER_PASSWORD": password, "JUPYTER_PORT": str(port)}
    container = Container(environ, command=["idle"], flags=["--network", "host"]).start()
    try:
        url = f"http://127.0.0.1:{port}/api/contents"
        asked = _status(url, 60)
        assert asked == 403
        assert _status(f"{url}?token={quote(password)}") == 200
        processes = container.exec("bash", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        assert password not in processes
    finally:
        container.remove()


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
    """Keys, tokens, the machine's own settings of pip, and what lay beside the Dockerfile."""
    history = engine("history", "--no-trunc", IMAGE).stdout
    assert not re.search(r"(?i)token=|password=|hf_[A-Za-z0-9]{20}|PRIVATE KEY", history)
    look = (
        "ls /etc/pip.conf /root/.pip /root/.config /root/.cache /etc/ssh/ssh_host_* /opt/envtune/.env "
        "/opt/envtune/.git /opt/envtune/tests /opt/envtune/.uv 2> /dev/null; "
        "grep -rlE 'BEGIN (RSA |OPENSSH |EC )?PRIVATE KEY|hf_[A-Za-z0-9]{30}' /etc /home /root "
        "/opt/envtune/src /opt/envtune/scripts /workspace 2> /dev/null"
    )
    found = Container(flags=["--user", "0", "--entrypoint", "bash"], command=["-c", look]).run()
    assert found.out.split() == []


@pytest.mark.skipif("PLANTED_SECRET" not in os.environ, reason="CI plants one for the build")
def test_a_secret_of_the_build_is_in_no_layer() -> None:
    """It lay in .env beside the Dockerfile, and in the environment of whoever built."""
    planted = os.environ["PLANTED_SECRET"]
    assert planted not in engine("history", "--no-trunc", IMAGE).stdout
    assert planted not in engine("image", "inspect", IMAGE).stdout
    look = "! grep -rqF --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev -f - /"
    flags = ["--interactive", "--user", "0", "--entrypoint", "bash"]
    command = [*ENGINE, "run", "--rm", *flags, IMAGE, "-c", look]
    found = subprocess.run(command, input=planted, env=ENVIRON, text=True, check=False)
    assert found.returncode == 0


def test_code_lies_where_nobody_mounts_and_only_root_may_change_it() -> None:
    look = "find /opt/envtune -maxdepth 2 -writable; find / -xdev -perm -4000 -newer /etc/hostname"
    found = Container(flags=["--user", "10001:0"], command=["bash", "-c", look]).run()
    assert found.out.split() == []
