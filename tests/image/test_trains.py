"""The demo trains in the image as clusters start it, and a stop leaves a checkpoint."""

import json
import os
import random
import stat
from pathlib import Path

from tests.image.containers import Container

# The hardest start: nobody's user, a root that cannot be written, no network, no rights.
LOCKED = [
    "--user", "54321:0", "--read-only", "--tmpfs", "/tmp", "--network", "none",
    "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
]  # fmt: skip


def _run(workspace: Path) -> Path:
    return workspace / "outputs" / (workspace / "outputs" / "latest.txt").read_text().strip()


def test_the_demo_trains_for_any_user_on_a_read_only_root_without_a_network(
    workspace: Path, demo: dict[str, str], flavor: str
) -> None:
    """An empty volume lies on /workspace; the adapter is proved in the image's own vLLM, which
    in the flavour for GPUs needs one: then it says so and is done."""
    proved = flavor == "cpu"
    demo = {**demo, "SFT_PARITY": "auto"}
    container = Container(demo, [f"{workspace}:/workspace"], [*LOCKED, "--shm-size", "1g"])
    ended = container.run()
    assert ended.code == 0, ended.err
    said = "tokens equal" if proved else "not proved: the vLLM of"
    assert said in ended.err
    run = _run(workspace)
    losses = [
        json.loads(line)["loss"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if '"loss"' in line
    ]
    assert losses[-1] < losses[0] - 3
    assert (run / ".complete").exists()
    for path in workspace.rglob("*"):
        told = path.lstat()
        assert (told.st_uid, told.st_gid) == (54321, 0), path
        if stat.S_ISDIR(told.st_mode):
            assert told.st_mode & 0o070 == 0o070, f"{path}: the next random user cannot write"
    # Somebody else of that group comes back to it, and trains nothing.
    again = Container(
        demo,
        [f"{workspace}:/workspace"],
        ["--user", "12345:0", "--shm-size", "1g"],
    )
    ended = again.run()
    assert ended.code == 0, ended.err
    assert "already done" in ended.err


def test_a_stop_at_a_random_step_is_143_with_a_checkpoint_and_goes_on(
    workspace: Path, demo: dict[str, str]
) -> None:
    seed = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    step = random.Random(seed).randrange(2, 12)
    print(f"seed {seed}: stopped at step {step}")
    volumes, message = [f"{workspace}:/workspace"], workspace / "last-word"
    message.touch()
    message.chmod(0o666)
    environ = {
        **demo,
        "SFT_GRACE_SECONDS": "110",
        "TERMINATION_LOG_FILE": "/workspace/last-word",
    }
    with Container(environ, volumes).started(asked="stopped at") as container:
        container.until(lambda said: f"step {step}/" in said or _at(workspace) >= step)
        assert container.exec("envtune", "health").stdout.strip().endswith("is at work")
        ended = container.stop()
    assert ended.code == 143, ended.err
    saved = [
        path
        for path in (_run(workspace) / "checkpoints").iterdir()
        if path.name.startswith("checkpoint-")
    ]
    assert saved
    assert "is committed" in message.read_text()
    ended = Container(environ, volumes).run()
    assert ended.code == 0, ended.err
    assert "resuming from" in ended.err


def _at(workspace: Path) -> int:
    try:
        return int(json.loads((_run(workspace) / "outcome.json").read_text())["step"])
    except (OSError, ValueError):
        return 0
