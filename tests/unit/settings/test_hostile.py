"""Documents made to hurt: refused with a line, in bounded time and memory, and never run.

Each is read by a process of its own whose memory and time are measured and limited.
"""

import base64
import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envtune.cli import configuration
from envtune.errors import Refused
from envtune.settings import sources

# An environment variable holds 128 KiB at most, so a larger base64 is handed over in Python.
READER = """
import sys
from envtune.settings import loading, sources
from envtune.errors import Refused
name, path = sys.argv[1:]
text = open(path).read() if name.endswith("ENV_VAR") else path
try:
    loading.load(sources.with_documents(sources.read(environ={name: text})))
except Refused as refused:
    print(*refused.problems, sep="\\n")
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) // 1024, file=sys.stderr)  # of this program alone, unlike ru_maxrss
"""
PATH, ENCODED = "SFT_TRAINER_CONFIG_JSON_PATH", "SFT_TRAINER_CONFIG_JSON_ENV_VAR"
SECONDS, MEBIBYTES = 120, 300


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, (str(self.target),))


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


def refused(name: str, path: Path) -> str:
    """The only line that a reader gets, after the bounds were kept."""
    done = subprocess.run(
        [sys.executable, "-c", READER, name, str(path)],
        capture_output=True, text=True, timeout=SECONDS, check=True, preexec_fn=_limited,
    )  # fmt: skip
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{name}: ")
    assert len(line) < 500
    assert int(done.stderr.splitlines()[-1]) < MEBIBYTES
    return line


def test_a_pickle_is_no_json_and_is_never_opened(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Bomb(tmp_path / "made"), protocol)
        for name, content in ((PATH, data), (ENCODED, base64.b64encode(data))):
            (tmp_path / "file").write_bytes(content)
            refused(name, tmp_path / "file")
    assert not (tmp_path / "made").exists()


ROWS = "".join(f'"name{i}": {i},' for i in range(3_000_000))
HUGE = ("{" + ROWS + '"last": 1}').encode()


@pytest.mark.parametrize("name", [PATH, ENCODED])
def test_fifty_megabytes_of_json_are_not_read(name: str, tmp_path: Path) -> None:
    assert len(HUGE) > 50_000_000
    (tmp_path / "c.json").write_bytes(base64.b64encode(HUGE) if name == ENCODED else HUGE)
    assert "holds more than 1 MiB" in refused(name, tmp_path / "c.json")


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 12))])


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("bomb.yaml", BOMB, "aliases are not taken"),
        ("deep.yaml", "a: " + "[" * 50_000, "nested too deeply"),
        ("steps.yaml", "".join(" " * i + "a:\n" for i in range(500)), "nested too deeply"),
        ("deep.json", '{"a": ' + "[" * 500_000, "nested too deeply"),
        ("names.yaml", "".join(f"a{i}: 1\n" for i in range(90_000)), "more than 128 KiB"),
        ("list.yaml", "a: [" + "a," * 500_000 + "]", "more than 128 KiB"),
        ("number.json", '{"lora_r": ' + "9" * 500_000 + "}", "is not JSON"),
        ("number.yaml", "lora_r: " + "9" * 5000, "is not YAML"),
        ("date.yaml", "lora_alpha_pattern: {2024-01-01: 1}", "is no name"),
        ("program.yaml", "a: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_document_that_would_grow_is_refused(
    file: str, text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(text)
    assert told in refused(PATH, tmp_path / file)


def test_a_file_without_an_end_and_one_without_a_writer_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    for path in (
        "/dev/zero",
        tmp_path / "pipe.json",
        tmp_path / "folder.json",
        tmp_path / "loop.json",
    ):
        refused(PATH, Path(path))


def test_many_names_cost_little(tmp_path: Path) -> None:
    """As many wrong names as fit: each has its own line, and the nearest name is looked for."""
    (tmp_path / "c.json").write_text(json.dumps({f"learnin_rate{i}": i for i in range(500)}))
    done = subprocess.run(
        [sys.executable, "-c", READER, PATH, str(tmp_path / "c.json")],
        capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 500


@pytest.mark.parametrize("path", ["/dev/zero", "{fifo}", "{large}"])
def test_a_secrets_file_without_an_end_is_refused(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * (2 << 20))
    given = path.format(fifo=tmp_path / "fifo", large=tmp_path / "large")
    with pytest.raises(Refused) as refused:
        sources.read(environ={"HF_TOKEN_FILE": given})
    [problem] = refused.value.problems
    assert str(problem).startswith(f"HF_TOKEN_FILE: {given} ")


PATHS = [
    "AXOLOTL_BASE_MODEL", "AXOLOTL_OUTPUT_DIR", "AXOLOTL_CHAT_TEMPLATE_JINJA", "SFT_CACHE_DIR",
    "SFT_CA_BUNDLE", "SFT_EVAL_DATASET", "SFT_EVAL_PROMPTS", "SFT_EVAL_TASKS_PATH",
    "SFT_OUTPUTS_DIR", "SFT_VLLM_VENV",
]  # fmt: skip


@pytest.mark.parametrize("start", ["", "/"])
@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_no_file_system_takes_is_refused(name: str, start: str, tmp_path: Path) -> None:
    """100 kB of it: the questions that pathlib asks would raise."""
    given = {"AXOLOTL_BASE_MODEL": str(tmp_path), "AXOLOTL_DATASETS__0__PATH": str(tmp_path)}
    with pytest.raises(Refused):
        configuration.configure((), {**given, name: start + '{"a":' * 20_000})
