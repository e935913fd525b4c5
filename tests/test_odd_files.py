"""What is no file in the place of one, through whole verbs: one line or passed over, soon."""

import itertools
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.harness import ROOT, clean_environ, execute

PYTHON = str(ROOT / ".venv" / "bin" / "python")
# Seconds of a verb on a machine that others share; an endless file would take for ever.
SOON = 60
# Kilobytes of address space: what is read whole is bounded.
MEMORY = 4_000_000

KINDS: Mapping[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "brackets": lambda path: path.write_text("[" * 200_000),
    "sparse": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 20 << 30),
    "folder": lambda path: path.mkdir(),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 4000),
    "nothing": lambda path: path.symlink_to("/dev/null"),
}
# The variables that make a verb read a path.
PLACES: Mapping[str, Mapping[str, str]] = {
    "x.jsonl": {"AXOLOTL_DATASETS__0__PATH": "x.jsonl"},
    "c.json": {"SFT_TRAINER_CONFIG_JSON_PATH": "c.json"},
    "t.j2": {"SFT_TEMPLATE": "t.j2"},
    "ca.pem": {"SFT_CA_BUNDLE": "ca.pem"},
    "last-word": {"TERMINATION_LOG_FILE": "last-word"},
    "model/config.json": {"AXOLOTL_BASE_MODEL": "model"},
    "model/tokenizer.json": {"AXOLOTL_BASE_MODEL": "model"},
    "ct.jinja": {"AXOLOTL_CHAT_TEMPLATE": "jinja", "AXOLOTL_CHAT_TEMPLATE_JINJA": "ct.jinja"},
    "ds.json": {"AXOLOTL_DEEPSPEED": "ds.json"},
    "p.json": {"SFT_EVAL_PROMPTS": "p.json", "SFT_EVALUATE": "true"},
    "token": {"HF_TOKEN_FILE": "token"},
    "outputs/latest.txt": {},
    "outputs/other-run1/run.json": {},
}
CASES = [(*case, "check") for case in itertools.product(PLACES, KINDS)] + [
    (place, kind, verb)
    for place, kind in itertools.product(list(PLACES)[-2:], KINDS)
    for verb in ("runs", "welcome", "health")
]


def test_no_verb_waits_or_breaks(tmp_path: Path, embedded: Path, dice: random.Random) -> None:
    (tmp_path / "demo").symlink_to(embedded)
    for index, (place, kind, verb) in enumerate(dice.sample(CASES, 30)):
        folder = tmp_path / str(index)
        shutil.copytree(embedded / "tiny-llama", folder / "model")
        (folder / "outputs" / "other-run1").mkdir(parents=True)
        (folder / place).unlink(missing_ok=True)
        KINDS[kind](folder / place)
        given = {
            "AXOLOTL_BASE_MODEL": str(embedded / "tiny-llama"),
            "AXOLOTL_DATASETS__0__PATH": str(embedded / "instructions.jsonl"),
            **PLACES[place],
        }
        limited = f'ulimit -v {MEMORY}; exec "$@"'
        started = time.monotonic()
        told = execute(
            ["bash", "-c", limited, "bash", PYTHON, "-m", "envtune", verb],
            folder,
            clean_environ(SFT_PARITY="off", SFT_DEVICE="cpu", **given),
        )
        case = (place, kind, verb, told)
        assert time.monotonic() < started + SOON, case
        assert told.code in (0, 1, 3, 4), case
        assert "Traceback" not in told.err, case
        assert told.code == 0 or 1 <= len(told.said) <= 3, case  # a problem each
