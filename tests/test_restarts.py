"""A container that a platform starts again and again: a failure is not paid for twice.

The start is process 1 of a PID namespace of its own, as in a container.
"""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envtune.errors import Exit
from envtune.settings import sources
from envtune.supervise import restarts
from tests import runpod_standin
from tests.harness import AUTORUN, Entrypoint, Result, clean_environ, execute, read

AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
LINE = "training failed at step 3: the data could not be read: row 7 (log: run.log)"

pytestmark = pytest.mark.skipif(
    subprocess.run([*AS_PROCESS_1, "true"], capture_output=True, check=False).returncode != 0,
    reason="no PID namespace can be made here",
)


@pytest.fixture
def failed(entrypoint: Entrypoint) -> Path:
    """The folder of a run whose last start has failed for good."""
    environ = clean_environ(**entrypoint.settings)
    result = execute(["envtune", "configure"], entrypoint.folder, environ | _on_path(environ))
    assert result.code == 0, result.err
    folder = Path(result.out.strip())
    _fail(folder, environ)
    return folder


def _fail(folder: Path, environ: dict[str, str]) -> None:
    starts = restarts.Starts(folder, sources.read((), environ))
    starts.begin()
    starts.end(Exit.DATA, LINE)


def _on_path(environ: dict[str, str]) -> dict[str, str]:
    return {"PATH": f"{AUTORUN.parents[1]}/.venv/bin:{environ['PATH']}"}


@pytest.fixture
def restart(entrypoint: Entrypoint) -> Callable[..., Result]:
    def start(*words: str, **more: str) -> Result:
        environ = {**clean_environ(**entrypoint.settings), **more}
        return execute([*AS_PROCESS_1, str(AUTORUN), *words], entrypoint.folder, environ)

    return start


def test_a_restart_says_the_same_line_and_starts_nothing(
    failed: Path, restart: Callable[..., Result], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    for _ in range(2):
        result = restart(TERMINATION_LOG_FILE=str(told))
        assert result.code == 3, result.err
        assert told.read_text() == LINE
        assert "is not tried again by a restart" in result.err
    assert not (failed / "outcome.json").exists()
    assert not list(tmp_path.glob("logs/*/train/run.log"))


def test_a_restart_after_a_failure_stops_the_pod(
    failed: Path, restart: Callable[..., Result], entrypoint: Entrypoint
) -> None:
    """Also where nobody has asked for it: RunPod would start it again for ever."""
    with runpod_standin.running() as runpod:
        environ = {"SFT_OUTPUTS_DIR": str(failed.parent), "SFT_LOGS_DIR": "logs", **runpod.environ}
        _fail(failed, clean_environ(**entrypoint.settings, **environ))
        result = restart(**environ)
        assert result.code == 3, result.err
        assert "is not tried again by a restart" in result.err
        assert runpod.status == "EXITED"


def test_a_wrong_variable_stops_the_pod_unless_told_otherwise(
    restart: Callable[..., Result], tmp_path: Path
) -> None:
    with runpod_standin.running() as runpod:
        wrong = {"AXOLOTL_LORA_R": "x", "SFT_OUTPUTS_DIR": "outputs", **runpod.environ}
        assert restart(SFT_ON_FAIL="exit", **wrong).code == 1
        assert runpod.asked == []
        assert restart(**wrong).code == 1
        assert runpod.status == "EXITED"
    assert not (tmp_path / "outputs").exists()


def test_failures_before_a_run_wait_are_counted_and_stop_the_pod(
    restart: Callable[..., Result], tmp_path: Path
) -> None:
    """A crash of the check, as a shell sees it: tried twice, a little later."""
    with runpod_standin.running() as runpod:
        environ = {"SFT_OUTPUTS_DIR": "outputs", **runpod.environ}
        first = restart("envtune", "finish", "139", **environ)
        assert (first.code, runpod.asked) == (203, [])
        assert "the container exits in 10 s, to be started again" in first.err
        [count] = tmp_path.glob("outputs/.starts-*.json")
        assert read(count)["times"] == 1
        assert restart("envtune", "finish", "139", **environ).code == 203
        assert runpod.status == "EXITED"


def test_a_pod_without_a_key_is_held_and_told_of(entrypoint: Entrypoint) -> None:
    """Nothing can end its bill from here, and restarts would only hide why."""
    environ = {**entrypoint.settings, "RUNPOD_POD_ID": "x3dz", "AXOLOTL_LORA_R": "x"}
    with pytest.raises(subprocess.TimeoutExpired) as held:
        subprocess.run(
            [*AS_PROCESS_1, str(AUTORUN)],
            cwd=entrypoint.folder,
            env=clean_environ(**environ),
            capture_output=True,
            timeout=15,
            check=True,
        )
    told = (held.value.stderr or b"").decode()
    assert "pod x3dz STILL RUNS AND BILLS: RUNPOD_API_KEY is not set to stop it with" in told
    assert "AXOLOTL_LORA_R" in told


def test_a_restart_of_another_node_than_node_0_gives_up_too(
    entrypoint: Entrypoint, restart: Callable[..., Result]
) -> None:
    environ = clean_environ(**entrypoint.settings)
    place = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1"}
    configure = {**environ, **_on_path(environ), **place, "NODE_RANK": "0"}
    made = execute(["envtune", "configure"], entrypoint.folder, configure)
    _fail(Path(made.out.strip()), environ)
    result = restart(**place, NODE_RANK="1")
    assert result.code == 3, result.err
    assert LINE in result.lines[-1]


NAMES = """
import sys
from envtune.machine import hardware
print(hardware.container(dict(pair.split("=") for pair in sys.argv[1:])))
"""


def test_a_new_container_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    """Each gets a hosts file of its own, in a mount namespace as engines make one."""
    python = str(AUTORUN.parents[1] / ".venv" / "bin" / "python")

    def name(id_: str, *environ: str) -> str:
        hosts = tmp_path / "containers" / id_ / "hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text("127.0.0.1 localhost\n")
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", script, str(hosts), python, "-c", NAMES]
        done = execute([*words, *environ], tmp_path, clean_environ())
        assert done.code == 0, done.err
        return done.out.strip()

    assert name("first") == name("first") != name("second")
    assert name("first").endswith("containers/first/hosts")
    assert name("first", "POD_UID=c0ffee") == "c0ffee"
    assert name("first", "POD_UID=c0ffee", "RUNPOD_POD_ID=x3dz") == "x3dz"


def test_a_container_that_is_killed_again_and_again_gives_up(
    failed: Path, entrypoint: Entrypoint, restart: Callable[..., Result]
) -> None:
    """The last of five kills is one for real, of process 1 while it trains."""
    environ = clean_environ(**entrypoint.settings)
    [count] = failed.glob(".starts-*")
    count.unlink()
    for _ in range(4):
        restarts.Starts(failed, sources.read((), environ)).begin()
    killed = subprocess.Popen(
        [*AS_PROCESS_1, str(AUTORUN)],
        cwd=entrypoint.folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while read(count)["times"] < 5:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    killed.kill()
    killed.wait()
    result = restart()
    assert result.code == 202, result.err
    assert "the last start was killed from outside" in result.lines[-1]


def test_the_record_of_a_file_that_cannot_be_written_says_what_the_exit_says(
    failed: Path, entrypoint: Entrypoint
) -> None:
    (Path(read(failed / "run.json")["logs"]) / "train").touch()
    result = entrypoint.run()
    assert "/train: File exists" in result.lines[-1], result.lines[-1]
    assert read(failed / "run.json")["outcome"]["exit"] == result.code == 1


def test_a_limit_that_is_used_up_is_told_before_anything_is_loaded(
    failed: Path, entrypoint: Entrypoint
) -> None:
    (failed / "budget.json").write_text('{"seconds": 7200, "usd": 0, "starts": 3}')
    result = entrypoint.run(SFT_MAX_HOURS="2")
    assert result.code == 7
    assert "SFT_MAX_HOURS: 2 hours are used up over 3 starts; raise it to go on" in result.err
    assert not (failed / "outcome.json").exists()


def test_a_training_that_cannot_work_is_not_begun_twice_by_one_container(
    restart: Callable[..., Result], tmp_path: Path
) -> None:
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (tmp_path / "bad.jsonl").write_text(f'{row}\n{{"messages": "nonsense"}}\n')
    change = {"AXOLOTL_DATASETS__0__PATH": "bad.jsonl", "SFT_PREPARE": "axolotl"}
    first = restart(**change)
    assert first.code == 3, first.err[-3000:]
    [log] = tmp_path.glob("logs/*/train/run.log")
    written = log.read_bytes()
    again = restart(**change)
    assert (again.code, again.lines[-1]) == (3, first.lines[-1])
    assert log.read_bytes() == written
    # A new pod of the same name may be larger, or have what this one had not.
    assert restart(POD_UID="other", **change).code == 3
    assert len(log.read_bytes()) > len(written)


# --- shells ------------------------------------------------------------------------------

RECORDER = """#!/bin/sh
echo "$@" > "$RECORDS/arguments"
cat "$(echo "$@" | sed 's/.*AuthorizedKeysFile=\\([^ ]*\\).*/\\1/')" > "$RECORDS/authorized"
"""


def test_process_1_lets_in_only_whom_a_variable_names(
    failed: Path, restart: Callable[..., Result], tmp_path: Path
) -> None:
    assert "is not installed" not in restart().err
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sshd").write_text(RECORDER)
    (programs / "sshd").chmod(0o755)
    path = {"PATH": f"{programs}:{os.environ['PATH']}", "RECORDS": str(tmp_path)}
    mine, other = (_public_key(tmp_path / name) for name in ("mine", "other"))
    told = restart(PUBLIC_KEY=mine, JUPYTER_PASSWORD="long-password", **path).err
    assert (tmp_path / "authorized").read_text() == f"{mine}\n"
    assert "PasswordAuthentication=no" in (tmp_path / "arguments").read_text()
    assert "JUPYTER_PASSWORD is set and jupyter is not installed: nothing listens" in told
    assert "long-password" not in told
    told = restart(SSH_KEY=other, PUBLIC_KEY=mine, **path).err
    assert (tmp_path / "authorized").read_text() == f"{mine}\n{other}\n"
    assert "JUPYTER" not in told
    told = restart(JUPYTER_PASSWORD="long-password", JUPYTER_DISABLE="1", **path).err
    assert "JUPYTER_DISABLE is set: Jupyter stays shut" in told
    assert "not installed" not in told


def test_what_is_no_key_is_told_and_not_shown(
    failed: Path, restart: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "sshd").write_text(RECORDER)
    (tmp_path / "sshd").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORDS": str(tmp_path)}
    told = restart(SSH_KEY="/root/.ssh/id_mine", **path).err
    assert "PUBLIC_KEY and SSH_KEY hold no public key of SSH" in told
    assert "id_mine" not in told
    assert not (tmp_path / "authorized").exists()


def _public_key(file: Path) -> str:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    subprocess.run(command, check=True)
    return file.with_suffix(".pub").read_text().strip()


def test_a_start_from_a_shell_lets_nobody_in(entrypoint: Entrypoint) -> None:
    assert "is not installed" not in entrypoint.run(PUBLIC_KEY="k", AXOLOTL_LORA_R="x").err


def test_a_shell_by_ssh_gets_the_containers_variables(tmp_path: Path) -> None:
    profile = AUTORUN.parent / "profile.sh"
    shell = f'env -i HOME=/mine TERM=t PATH=/bin bash -c ". {profile}; env -0"'
    container = {"PATH": "/usr/bin:/bin:/opt/x", "HOME": "/theirs", "ROWS": 'a  "b"\n$c'}
    done = execute([*AS_PROCESS_1, "sh", "-c", f"{shell}; true"], tmp_path, container)
    seen = dict(pair.split("=", 1) for pair in done.out.split("\0") if pair)
    assert seen["PATH"] == container["PATH"]
    assert seen["ROWS"] == container["ROWS"]
    assert (seen["HOME"], seen["TERM"]) == ("/mine", "t")


def test_another_shell_than_bash_is_left_alone(tmp_path: Path) -> None:
    script = f". {AUTORUN.parent}/profile.sh; echo went on"
    assert execute(["sh", "-c", script], tmp_path, clean_environ()).out == "went on\n"
