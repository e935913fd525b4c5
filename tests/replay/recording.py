"""What four verbs say to some four hundred environments, kept so that a change of the house shows
that no user sees it: `python -m tests.replay.recording` keeps it anew, on purpose.

A case is an environment with its files; an answer is all that a start leaves behind.
"""

import gc
import importlib
import json
import logging
import lzma
import os
import pkgutil
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import envtune
from envtune.__main__ import main
from envtune.settings.own import OWN
from tests.environments import _COMMON, environment, furnish
from tests.harness import NOWHERE, ROOT
from tests.replay import test_compose, test_industrial, test_pod, test_trainer
from tests.replay.conftest import encoded
from tests.unit.settings.test_mutations import NAMES, SLIPS

KEPT = Path(__file__).with_suffix(".jsonl.xz")
# Of one length everywhere, since tables are laid out by it.
_PREFIX, _HERE = "envtune-recorded-", "{HERE}"
_LONGEST = 4000
# The engine's side, and what does something when it is imported.
_APART = (
    "envtune.engine",
    "envtune.machine.unverified",
    "envtune.reference.__main__",
    "envtune.__main__",
)
_CHANGING = (
    (re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", re.MULTILINE), ""),
    (re.compile(r"\d+ cores, \d+ GiB memory"), "{MACHINE}"),
    (re.compile(r"\b\d{14}\b|\d{8}[-_]\d{6}"), "{TIME}"),
)

Case = dict[str, Any]
Answer = dict[str, Any]


def cases() -> Iterator[Case]:
    """The environments and their files; folders are written as {HERE}."""
    dice = random.Random(11)
    yield from _odd(dice, 120)
    yield from _slips(dice, 60)
    for name, texts in sorted(_COMMON.items()):
        yield from ({"environ": _base() | {name: text}} for text in texts)
    for name, own in sorted(OWN.items()):
        for value in (own.default, "nonsense"):
            text = "" if value is None else str(value)
            yield {"environ": _base() | {name: text}}
    yield from _documents()


def _base(**more: str) -> dict[str, str]:
    rows = [{"path": f"{_HERE}/rows.jsonl", "type": "alpaca"}]
    return {
        "AXOLOTL_BASE_MODEL": f"{_HERE}/model",
        "AXOLOTL_DATASETS": json.dumps(rows),
        "SFT_OUTPUTS_DIR": f"{_HERE}/outputs",
        **more,
    }


def _odd(dice: random.Random, count: int) -> Iterator[Case]:
    """Of the fuzz, those that are no book."""
    made = 0
    while made < count:
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
            place = Path(name)
            given = environment(dice, place)
            files = {p.name: p.read_bytes().decode("latin-1") for p in place.iterdir()}
            text = json.dumps({"environ": given, "files": files}).replace(name, _HERE)
        if len(text) < _LONGEST:
            made += 1
            yield json.loads(text)


def _slips(dice: random.Random, count: int) -> Iterator[Case]:
    for number in range(count):
        name = dice.choice(NAMES)
        wrong = SLIPS[number % len(SLIPS)](name, dice.randrange(len(name)), dice)
        yield {"environ": _base() | {wrong: "1"}}


def _documents() -> Iterator[Case]:
    """The sources' own files, whole and with a key less, by each door that they have."""
    mounts = {
        "model_name_or_path": f"{_HERE}/model",
        "training_data_path": f"{_HERE}/rows.jsonl",
        "output_dir": f"{_HERE}/out",
    }
    trainer = test_trainer.EXAMPLE | mounts
    for document in (trainer, *_less(trainer), *_more(trainer)):
        yield {"environ": {"SFT_TRAINER_CONFIG_JSON_ENV_VAR": encoded(document)}}
    for document in (test_compose.CONFIG, *_less(test_compose.CONFIG)):
        yield _mounted("config.yaml", document, SFT_PRETEND_GPU="h100")
    for document in (test_industrial.TRAINING, *_less(test_industrial.TRAINING)):
        environ = {"SFT_DATASET_CONFIG": f"{_HERE}/data.json"}
        case = _mounted("training.json", document, **environ)
        case["files"]["data.json"] = json.dumps(test_industrial.DATA)
        yield case
    for variables, _ in test_pod.EXAMPLES:
        yield {"environ": {**variables, "SFT_PRETEND_GPU": "h100x2"}}
    yield {"environ": {}}
    yield {"environ": {"HOSTNAME": "pod", "AXOLOTL_SERVICE_HOST": "10.0.0.1"}}


def _mounted(name: str, document: Mapping[str, Any], **environ: str) -> Case:
    files = {name: json.dumps(document)}
    named = {
        "SFT_TRAINER_CONFIG_JSON_PATH": f"{_HERE}/{name}",
        "AXOLOTL_BASE_MODEL": f"{_HERE}/model",
    }
    return {"environ": {**named, **environ}, "files": files}


def _less(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key in document:
        yield {name: value for name, value in document.items() if name != key}


def _more(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for more in (
        {"peft_method": "lora", "r": 8, "target_modules": ["q_proj"]},
        {"peft_method": "pt"},
        {"accelerate_launch_args": {"q": True}},
        {"accelerate_launch_args": {"num_processes": 2}},
        {"learning_rat": 1e-5},
    ):
        yield {**document, **more}


def preload() -> None:
    """Imports what a start may want of the control plane, so that a fork wants nothing more."""
    for module in pkgutil.walk_packages(envtune.__path__, "envtune."):
        if not module.name.startswith(_APART):
            importlib.import_module(module.name)
    for name in ("huggingface_hub.hf_api", "httpx", "jinja2"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def answers(case: Case) -> list[Answer]:
    """What each verb answers, in a folder of its own."""
    text = json.dumps(case)
    key = next(
        (n[8:].lower() for n in case["environ"] if n.startswith("AXOLOTL_LORA")), "learning_rate"
    )
    # What is pretended is not trained, and leaves no folder.
    to = ["--output", "axolotl.yaml"] if "SFT_PRETEND_GPU" in text else []
    verbs = (["check"], ["configure", *to], ["explain", key], ["print-runtime"])
    return [_answer(text, verb) for verb in verbs]


def _answer(text: str, argv: list[str]) -> Answer:
    place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
    try:
        furnish(place)
        case = json.loads(text.replace(_HERE, str(place)))
        for name, content in case.get("files", {}).items():
            if not (place / name).is_dir():
                (place / name).write_bytes(content.encode("latin-1"))
        code = _run(argv, case["environ"], place)
        written = sorted(
            p
            for p in place.glob("**/*")
            if p.is_file() and p.suffix in (".yaml", ".json", ".err", ".out")
        )
        kept = {
            str(p.relative_to(place)): p.read_text(errors="surrogateescape")
            for p in written
            if _is_ours(p)
        }
        return json.loads(_settled(json.dumps({"argv": argv, "code": code, "left": kept}), place))
    finally:
        shutil.rmtree(place)


def _is_ours(path: Path) -> bool:
    return path.name not in (
        "config.json",
        "tokenizer.json",
        "run.json",
        "data.json",
        "training.json",
    )


def _settled(text: str, place: Path) -> str:
    """Without what differs from start to start; a line of the log begins after its time."""
    made = json.loads(text.replace(str(place), _HERE).replace(str(ROOT), "{ROOT}"))
    for pattern, word in _CHANGING:
        made["left"] = {name: pattern.sub(word, said) for name, said in made["left"].items()}
    return json.dumps(made)


def _run(argv: list[str], environ: Mapping[str, str], place: Path) -> int:
    """The command in a fork of this process, which has imported it, on one core."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        os.chdir(place)
        logging.root.handlers.clear()  # pytest's
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for number, name in ((0, os.devnull), (1, "said.out"), (2, "said.err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # pytest has its own
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(
            {
                "PATH": "/usr/bin:/bin",
                "HOME": "/root",
                "HF_HUB_OFFLINE": "1",
                "HF_ENDPOINT": NOWHERE,
            }
        )
        os.environ.update(environ)
        code = _ended(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _ended(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as end:
        return int(end.code or 0)


def kept() -> list[dict[str, Any]]:
    with lzma.open(KEPT, "rt") as stream:
        return [json.loads(line) for line in stream]


def record() -> None:
    preload()
    with lzma.open(KEPT, "wt") as stream:
        for case in cases():
            stream.write(json.dumps({"case": case, "answers": answers(case)}) + "\n")


if __name__ == "__main__":
    record()
