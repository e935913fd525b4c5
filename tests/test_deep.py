"""`check --deep`, and Axolotl's own word on what our tables say about it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envtune.checks import axolotl_validation
from envtune.engine import validate
from envtune.machine.hardware import Machine
from envtune.machine.pretended import pretend
from envtune.settings import axolotl_keys, passed_over, retired, upstream
from envtune.settings.schema import Node
from tests.harness import ROOT, clean_environ, envtune
from tests.unit.builders import load, make_facts, resolved, values
from tests.unit.checks.test_preflight import ALLOWED

SCHEMA = axolotl_keys.schema()
MACHINES = ("cpu", "t4", "v100", "a100", "l4", "h100x8", "b200")
HOPPER = {"bf16": True, "tf32": True, "fp8": True, "n_gpu": 1, "compute_capability": "sm_90"}
BARE = {"base_model": "a/b", "learning_rate": 1e-4, "datasets": [{"path": "x", "type": "alpaca"}]}
_PAST = re.compile(r"deprecat|no longer|been removed|supersed", re.IGNORECASE)

Question = tuple[dict[str, Any], dict[str, Any]]


def machine(name: str) -> Machine:
    return Machine((), 4, 2**34) if name == "cpu" else pretend(name)


def question(environ: dict[str, str], name: str) -> Question:
    """The configuration that envtune makes of AXOLOTL_* variables on a machine."""
    named = {f"AXOLOTL_{key}": text for key, text in environ.items()}
    config = resolved(named, make_facts(machine(name)))
    plain = json.loads(json.dumps(config.plain()))
    return plain, axolotl_validation.capabilities(config, machine(name))


def bare(key: str, value: Any) -> Question:
    """Axolotl's own minimum and one key, with the plugin that the key needs."""
    plugins = [p for p, known in upstream.axolotl()["plugins"].items() if key in known["fields"]]
    return {**BARE, "plugins": plugins, key: value}, HOPPER


def samples(node: Node) -> Iterator[Any]:
    """Some values of each type that a node allows."""
    for option in SCHEMA._options(node):
        allowed = option.get("enum", [option["const"]] if "const" in option else [])
        yield from allowed[:3]
        if not allowed:
            yield from _SAMPLES.get(option.get("type", "object"), [])


_SAMPLES = {
    "boolean": [True], "integer": [1], "number": [0.5], "string": ["word"],
    "array": [["word"], [{"path": "x"}]], "object": [{"name": 1}],
}  # fmt: skip

# Not asked about key by key: what they hold is checked elsewhere, or they act when asked.
_LEFT_OUT = ("base_model", "datasets", "plugins", "nemo_gym_", "swanlab_", "use_swanlab")
KEYS = [key for key in SCHEMA.fields if not key.startswith(_LEFT_OUT)]
TODAY = [
    (key, value, dict(today))
    for key in KEYS
    for value in samples(SCHEMA.fields[key])
    if (today := retired.today(key, value))
]


@pytest.fixture(scope="module")
def axolotl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Axolotl's answers to everything that this module asks, from one child."""
    asked: dict[str, list[Question]] = {
        "defaults": [question({}, name) for name in MACHINES],
        "full": [question({"ADAPTER": "null"}, name) for name in MACHINES],
        "allowed": [question(environ, "a100") for environ in ALLOWED],
        "optimizers": [
            question({"OPTIMIZER": name, **({} if name == "polora" else {"ADAPTER": "null"})}, gpus)
            for name in _optimizers()
            for gpus in ("h100", "h100x8")
        ],
        "keys": [bare(key, value) for key in KEYS for value in samples(SCHEMA.fields[key])],
        "old": [bare(key, value) for key, value, _ in TODAY],
        "new": [({**bare(next(iter(t)), 0)[0], **t}, HOPPER) for _, _, t in TODAY],
        "missed": [({**BARE, **missed}, HOPPER) for missed in MISSED],
        "dropped": [bare(name, 1) for name in passed_over.DROPPED],
    }
    folder = tmp_path_factory.mktemp("axolotl")
    (folder / "questions").write_text(json.dumps([q for part in asked.values() for q in part]))
    command = [sys.executable, "-m", "tests.many_configurations", "questions", "answers"]
    environ = clean_environ(AXOLOTL_DO_NOT_TRACK="1", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = iter(json.loads((folder / "answers").read_text()))
    return {name: [next(answers) for _ in part] for name, part in asked.items()}


def _optimizers() -> list[str]:
    return list(SCHEMA.fields["optimizer"]["anyOf"][0]["enum"])


Answers = dict[str, list[dict[str, Any]]]


@pytest.mark.parametrize("method", ["defaults", "full"])
def test_axolotl_accepts_the_defaults_on_every_machine(axolotl: Answers, method: str) -> None:
    refused = {name: a["problems"] for name, a in zip(MACHINES, axolotl[method], strict=True)}
    assert refused == {name: [] for name in MACHINES}


def test_axolotl_accepts_what_the_fast_check_accepts(axolotl: Answers) -> None:
    refused = [
        (environ, answer["problems"])
        for environ, answer in zip(ALLOWED, axolotl["allowed"], strict=True)
        if answer["problems"] and "PLUGINS" not in environ
    ]
    assert not refused


def test_the_defaults_give_way_to_every_optimizer(axolotl: Answers) -> None:
    asked = [name for name in _optimizers() for _ in range(2)]  # one GPU and eight
    refused = zip(asked, (a["problems"] for a in axolotl["optimizers"]), strict=True)
    assert not [pair for pair in refused if pair[1]]


def test_every_key_of_the_past_is_in_our_tables(axolotl: Answers) -> None:
    """Each key alone: where Axolotl speaks of the past, so do we, and the other way round."""
    asked = [(key, value) for key in KEYS for value in samples(SCHEMA.fields[key])]
    said = {
        key
        for (key, _), answer in zip(asked, axolotl["keys"], strict=True)
        for text in [*answer["warnings"], *(p["message"] for p in answer["problems"])]
        if _PAST.search(text)
    }
    fields = upstream.axolotl()["fields"]
    marked = {
        key
        for key, node in fields.items()
        if node.get("deprecated") or re.match(r"\W*deprecated", node.get("description", ""), re.I)
    }
    own = {
        "overrides_of_model_config",
        "overrides_of_model_kwargs",
        "revision_of_model",
        "type_of_model",
    }
    silent = {"noisy_embedding_alpha", *own}  # moved without a word; its own names for four keys
    ours = {key for key, _, _ in TODAY} | retired.KEPT.keys() | retired.REMOVED.keys()
    # Not the key is of the past, but what it does without `streaming` or `fsdp_version: 2`.
    elsewhere = {"pretraining_dataset", "fsdp_config"}
    assert said | marked | silent == ours | elsewhere


def test_axolotl_refuses_every_removed_key_or_never_heard_of_it(axolotl: Answers) -> None:
    asked = [key for key in KEYS for _ in samples(SCHEMA.fields[key])]
    refused = {k for k, a in zip(asked, axolotl["keys"], strict=True) if a["problems"]}
    assert not retired.REMOVED.keys() - refused


def test_axolotl_drops_what_is_said_to_be_dropped(axolotl: Answers) -> None:
    answers = zip(passed_over.DROPPED, axolotl["dropped"], strict=True)
    assert not [name for name, answer in answers if name in answer["result"]]


def test_a_translation_means_to_axolotl_what_the_old_key_meant(axolotl: Answers) -> None:
    assert {key for key, _, _ in TODAY} >= {*retired.RENAMED, *retired.FLAGS}
    for (key, value, today), old, new in zip(TODAY, axolotl["old"], axolotl["new"], strict=True):
        if "result" not in old:  # a value that the old key's type takes and no key means
            assert "result" not in new, (key, value, old["problems"])
            continue
        ignored = {"plugins", *({key} - today.keys())}
        before, after = (
            {k: v for k, v in a["result"].items() if k not in ignored} for a in (old, new)
        )
        if key == "flash_attn_d512":  # read where the model is loaded
            after.pop("large_head_attention")
        assert before == after, (key, value)


MISSED = [
    {"learning_rate": -1.0},
    {"optimizer": "adamww"},
    {"lr_scheduler": "cosinee"},
    {"hub_strategy": "nope"},
    {"adapter": "lora", "load_in_4bit": True, "load_in_8bit": True},
    {"deepspeed": "zero3.json", "fsdp_config": {"offload_params": True}},
    {"adapter": "lora"},
    {"bf16": True, "fp16": True},
    {"batch_size": 64, "micro_batch_size": 4},
]


def test_what_axolotl_misses_is_still_missed_by_it(axolotl: Answers) -> None:
    """A row that Axolotl has learnt to refuse can leave our checks."""
    assert not [m for m, a in zip(MISSED, axolotl["missed"], strict=True) if a["problems"]]
    ignored = axolotl["missed"][-1]["result"]
    assert (ignored["batch_size"], ignored["gradient_accumulation_steps"]) == (64, 1)


def test_the_names_that_count_as_packing_are_attention_implementations() -> None:
    names = SCHEMA.fields["attn_implementation"]["anyOf"][0]["enum"]
    assert {n for n in upstream.axolotl()["packing"] if "/" not in n} == {*names} - {"fp8"}


@pytest.fixture
def job(settings: dict[str, str]) -> dict[str, str]:
    """A job for eight H100 on a machine that has its model and data and no GPU."""
    return clean_environ(**settings, SFT_PRETEND_GPU="h100x8")


def test_a_laptop_checks_the_job_of_eight_h100(tmp_path: Path, job: dict[str, str]) -> None:
    done = envtune("check", "--deep", "AXOLOTL_TF32=auto", cwd=tmp_path, environ=job)
    assert done.code == 0, done.err
    assert "AXOLOTL_TF32" in done.out
    assert re.search(r"^bf16 +true", done.out, re.M)
    assert "SFT_PRETEND_GPU: checked for 8 x NVIDIA H100 80GB HBM3" in done.err
    assert "Axolotl: Auto-enabling LoRA kernel optimizations" in done.err
    assert "torchao" not in done.err
    assert not list(tmp_path.iterdir())


def test_what_axolotl_refuses_is_told_by_the_variable_and_with_1(
    tmp_path: Path, job: dict[str, str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text('lr_groups: [{name: "a", modules: ["b"]}]\n')
    named = job | {"SFT_TRAINER_CONFIG_JSON_PATH": str(config)}
    done = envtune("check", "--deep", cwd=tmp_path, environ=named)
    assert done.code == 1
    line = done.lines[-1].removeprefix("ERROR ")
    assert re.match(
        r"SFT_TRAINER_CONFIG_JSON_PATH.*lr_groups: Axolotl refuses it at 0\.lr: Field", line
    )
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"keys": ["lora_r"], "message": "Input is wrong"}, "AXOLOTL_LORA_R: Axolotl refuses it: Input is wrong"),
        ({"keys": ["lora_alpha.int"], "message": "x"}, "AXOLOTL_LORA_ALPHA: Axolotl refuses it at int: x"),
        ({"keys": [], "message": "Value error, fp8  requested\nhere"}, "AXOLOTL_FP8: Axolotl refuses it: fp8 requested here"),
        ({"keys": [], "message": "`seed` and `fp8` do not go together"}, "AXOLOTL_FP8: "),
        ({"keys": ["seed", "lora_r"], "message": "AMP is not"}, "AXOLOTL_LORA_R: Axolotl refuses it: AMP is not"),
        ({"keys": [], "message": "no key is named"}, "Axolotl refuses it: no key is named"),
        ({"keys": ["no_such"], "message": "x" * 500}, "Axolotl refuses it: xxx"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_variable_that_the_user_can_change(
    told: dict[str, Any], line: str
) -> None:
    config = resolved({"AXOLOTL_FP8": "true", "AXOLOTL_LORA_R": "8"}, make_facts(machine("t4")))
    assert str(axolotl_validation.problem(config, **told)).startswith(line)
    assert len(str(axolotl_validation.problem(config, **told))) < 450


def test_a_refusal_that_names_no_key_is_about_the_key_without_which_it_is_gone() -> None:
    config = resolved({"AXOLOTL_RELORA": "true", "AXOLOTL_SEED": "7"})
    [said] = validate.refusals(
        config.plain(), axolotl_validation.capabilities(config, machine("cpu"))
    )
    assert said["keys"] == ["relora"]
    assert str(axolotl_validation.problem(config, **said)).startswith(
        "AXOLOTL_RELORA: Axolotl refuses it"
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cpu", (False, False, False, None)),
        ("t4", (False, False, False, "sm_75")),
        ("a100", (True, True, False, "sm_80")),
        ("h100x8", (True, True, True, "sm_90")),
        ("b200", (True, True, True, "sm_100")),
    ],
)
def test_a_machine_is_told_in_axolotls_words(name: str, told: tuple[Any, ...]) -> None:
    config = resolved(facts=make_facts(machine(name)))
    said = axolotl_validation.capabilities(config, machine(name))
    assert (said["bf16"], said["tf32"], said["fp8"], said["compute_capability"]) == told
    assert said["n_gpu"] == config.parallel.world


@pytest.mark.parametrize("verb", ["explain", "configure", "run-name-preview", "print-runtime"])
def test_a_pretended_machine_is_there_for_every_verb_that_makes_nothing(
    tmp_path: Path, job: dict[str, str], verb: str
) -> None:
    more = {"explain": ["bf16"], "configure": ["--output", "made.yaml"]}.get(verb, [])
    done = envtune(verb, *more, cwd=tmp_path, environ=job)
    assert done.code == 0, done.err
    if verb == "configure":
        assert "bf16: true" in (tmp_path / "made.yaml").read_text()


@pytest.mark.parametrize("verb", ["run", "configure"])
def test_nothing_is_trained_on_a_machine_that_is_not_here(
    tmp_path: Path, job: dict[str, str], verb: str
) -> None:
    done = envtune(verb, cwd=tmp_path, environ=job)
    assert done.code == 1
    assert done.lines[-1].endswith("SFT_PRETEND_GPU: is for checks alone; unset it to train")
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_not_on_the_laptop_is_still_a_problem(
    tmp_path: Path, job: dict[str, str]
) -> None:
    done = envtune("check", "AXOLOTL_DATASETS__0__PATH=./none.jsonl", cwd=tmp_path, environ=job)
    assert done.code == 3, done.err


def test_a_key_of_the_past_never_reaches_the_yaml() -> None:
    assert values({"AXOLOTL_FLASH_ATTENTION": "true"}) == {"flash_attention": True}
    config = resolved({"AXOLOTL_FLASH_ATTENTION": "true"}, make_facts(machine("a100")))
    assert not {*retired.RENAMED, *retired.FLAGS, *retired.REMOVED} & config.plain().keys()
    assert load({"AXOLOTL_FLASH_ATTENTION": "true"}).axolotl.keys() == {"flash_attention"}
