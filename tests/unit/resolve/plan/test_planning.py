"""From variables to a plan: what is open, what the user's word does, what is refused and how not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envtune.checks import room
from envtune.errors import Exit
from envtune.machine import rendezvous
from envtune.machine.pretended import pretend
from envtune.render import launch
from envtune.render.launch import Place
from envtune.resolve import accelerate_flags, parallel, planning
from envtune.resolve.config import Facts, RunConfig
from envtune.resolve.plan import levers, memory, rows
from envtune.resolve.plan.rows import Lengths
from envtune.resolve.rules import resolve
from tests.unit.builders import MODEL_AND_DATA, load, make_facts
from tests.unit.resolve.plan.jobs import CARDS, CONFIGS, SHORT, shape


def configured(gpu: str, model: str, lengths: Lengths | None = SHORT, **environ: str) -> RunConfig:
    """The configuration of a model on GPUs that are not here."""
    given = load({**MODEL_AND_DATA, **environ})
    facts = of(gpu, model, lengths)
    where, problems = rendezvous.read(environ, accelerate_flags.given(given))
    assert not problems
    layout, problems = parallel.decide(given, facts.machine, "cuda", where, None)
    assert not problems
    return resolve(given, replace(facts, parallel=layout, where=where))


def of(gpu: str, model: str, lengths: Lengths | None) -> Facts:
    facts = make_facts(pretend(gpu), **CONFIGS[model])
    return replace(facts, data=tuple(replace(one, lengths=lengths) for one in facts.data))


def step(config: RunConfig) -> int:
    """Sequences of an optimizer's step on all GPUs."""
    plain = config.plain()
    micro, accumulation = plain["micro_batch_size"], plain["gradient_accumulation_steps"]
    return int(micro * accumulation * config.parallel.world)


COUNTS = ("", "x2", "x4", "x8", "x16", "x32", "x64")


@pytest.mark.parametrize("method", ["lora", "qlora", "null"])
@pytest.mark.parametrize("many", [300, 2_000, 10_000, 52_000, None])
def test_a_step_has_as_many_sequences_from_one_to_64_gpus(many: int | None, method: str) -> None:
    lengths = None if many is None else replace(SHORT, rows=many)
    made = [configured(f"h100{n}", "1b", lengths, AXOLOTL_ADAPTER=method) for n in COUNTS]
    assert len({step(config) for config in made}) == 1
    assert len({config.plain()["learning_rate"] for config in made}) == 1


@pytest.mark.parametrize("nodes", [1, 2, 8])
def test_a_step_has_as_many_sequences_on_several_nodes(nodes: int) -> None:
    several = {"NNODES": str(nodes), "NODE_RANK": "0", "MASTER_ADDR": "train-0"}
    made = configured("h100x8", "1b", **(several if nodes > 1 else {}))
    assert step(made) == step(configured("h100", "1b"))
    assert made.parallel.world == 8 * nodes


@pytest.mark.parametrize(
    ("many", "steps"), [(300, (30, 120)), (2_000, (250, 450)), (10_000, (300, 700)), (10**6, (300, 10**5))]
)  # fmt: skip
def test_a_training_has_some_hundred_steps_where_its_rows_allow_it(
    many: int, steps: tuple[int, int]
) -> None:
    """As many as 16 rows a step would have, at most; few rows in large steps would learn little."""
    plan = configured("h100", "1b", replace(SHORT, rows=many)).plan
    assert plan is not None
    assert plan.steps is not None
    assert steps[0] <= plan.steps <= steps[1]
    assert plan.best.real >= 8 * SHORT.mean


def test_two_gpus_of_eight_train_so_few_rows_and_it_is_said() -> None:
    few = configured("h100x8", "1b", replace(SHORT, rows=300))
    assert few.parallel.world == step(few) < 8
    [line] = room.warnings(few)
    assert line.startswith(f"{8 - few.parallel.world} of 8 GPUs have nothing to do")
    every = configured("h100x8", "1b", replace(SHORT, rows=300), NPROC="8")
    assert every.parallel.world == 8


@pytest.mark.parametrize(
    ("gpu", "model", "environ", "preset"),
    [
        ("h100x8", "1b", {}, "ddp"),  # a copy fits, and tells the others an adapter alone
        ("h100x8", "8b", {}, "ddp"),
        ("h100x8", "70b", {}, "fsdp2"),  # 132 GiB of weights fit one GPU in no other way
        ("h100x8", "8b", {"AXOLOTL_ADAPTER": "null"}, "fsdp2"),  # weights and Adam: 48 GiB
        ("h100x8", "70b", {"AXOLOTL_ADAPTER": "qlora"}, "ddp"),
        ("h100x8", "1b", {"SFT_ACCELERATE_PRESET": "fsdp2"}, "fsdp2"),
        ("h100x8", "1b", {"AXOLOTL_RELORA": "true"}, "ddp"),
        ("t4x2", "1b", {}, "ddp"),
    ],
)
def test_gpus_have_a_copy_each_where_it_fits(
    gpu: str, model: str, environ: dict[str, str], preset: str
) -> None:
    made = configured(gpu, model, **environ)
    assert made.parallel.preset == preset
    assert ("fsdp_config" in made.axolotl) == (preset == "fsdp2")


# What the user sets: it stays, and the rest is planned around it.
@pytest.mark.parametrize(
    ("environ", "changed"),
    [
        ({"SAMPLE_PACKING": "false"}, {"pad_to_sequence_len": False}),
        ({"MICRO_BATCH_SIZE": "2"}, {"gradient_accumulation_steps": 32}),
        ({"GRADIENT_ACCUMULATION_STEPS": "4"}, {"micro_batch_size": 16}),
        ({"BATCH_SIZE": "12"}, {"micro_batch_size": 4, "gradient_accumulation_steps": 3}),
        ({"GRADIENT_CHECKPOINTING": "true"}, {"activation_offloading": None}),
        ({"LEARNING_RATE": "0.001"}, {}),
        ({"OPTIMIZER": "adamw_torch"}, {}),
        ({"LIGER_ROPE": "false"}, {"liger_rms_norm": None, "liger_fused_linear_cross_entropy": None}),
        ({"CUT_CROSS_ENTROPY": "true"}, {"liger_fused_linear_cross_entropy": None}),
        ({"CHUNKED_CROSS_ENTROPY": "true"}, {"liger_rms_norm": None}),
        ({"TILED_MLP": "true"}, {"liger_glu_activation": None}),
        ({"TENSOR_PARALLEL_SIZE": "2"}, {"liger_rms_norm": None}),
        ({"BATCH_FLATTENING": "true"}, {"sample_packing": False}),
        ({"EVAL_TABLE_SIZE": "3"}, {"sample_packing": False}),
        ({"CONTEXT_PARALLEL_SIZE": "2"}, {"sample_packing": False}),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_user_sets_stays_and_the_rest_yields(
    environ: dict[str, str], changed: dict[str, Any]
) -> None:
    full = {f"AXOLOTL_{name}": text for name, text in environ.items()}
    made = configured("h200x2" if "SIZE" in str(changed) else "h200", "1b", SHORT, **full)
    for name in environ:
        if name != "BATCH_SIZE":
            assert made.axolotl[name.lower()].source == f"AXOLOTL_{name}"
    assert {key: made.plain().get(key) for key in changed} == changed


def test_a_model_that_mixes_packed_documents_is_not_packed() -> None:
    config = {**CONFIGS["1b"], "model_type": "gpt_oss"}
    facts = make_facts(pretend("h100"), **config)
    made = resolve(load(MODEL_AND_DATA), facts)
    assert made.plain()["sample_packing"] is False
    assert "see each other" in made.axolotl["sample_packing"].reason


@pytest.mark.parametrize("missing", ["config", "cpu", "rl", "8bit"])
def test_without_a_plan_the_defaults_that_fit_first_hold(missing: str) -> None:
    environ = {"8bit": {"AXOLOTL_LOAD_IN_8BIT": "true"}}.get(missing, {})
    facts = of("h100", "1b", SHORT)
    if missing == "config":
        facts = make_facts(pretend("h100"))
    elif missing == "cpu":
        facts = replace(facts, device="cpu", machine=make_facts().machine)
    elif missing == "rl":
        environ = {"AXOLOTL_RL": "dpo", "AXOLOTL_LEARNING_RATE": "5e-6"}
    made = resolve(load({**MODEL_AND_DATA, **environ}), facts)
    assert made.plan is None
    assert not made.plain().get("sample_packing")
    assert made.plain().get("micro_batch_size") in (4, None)


def test_four_bits_are_chosen_where_lora_fits_in_no_other_way() -> None:
    made = configured("t4", "8b")
    assert made.plain()["adapter"] == "qlora"
    assert "LoRA does not fit" in made.axolotl["adapter"].reason
    refused = configured("t4", "8b", AXOLOTL_ADAPTER="lora")
    assert refused.plan is not None
    assert not refused.plan.fits


def test_an_evaluation_has_rows_whose_logits_fit() -> None:
    made = configured("h100", "1b", AXOLOTL_VAL_SET_SIZE="0.1")
    plain = made.plain()
    assert plain["eval_batch_size"] < plain["micro_batch_size"]
    assert 10 * CONFIGS["1b"]["vocab_size"] * 2048 * plain["eval_batch_size"] < 79 * 2**30
    assert "eval_batch_size" not in configured("h200", "1b").plain()


def test_long_rows_have_a_long_sequence_and_never_a_longer_one_than_the_model() -> None:
    long = rows.of([200] * 90 + [5000] * 10, 5000, "told")
    assert configured("h100", "1b", long).plain()["sequence_len"] == 6400
    facts = of("h100", "1b", long)
    model = replace(facts.model, config={**CONFIGS["1b"], "max_position_embeddings": 4096})
    made = resolve(load(MODEL_AND_DATA), replace(facts, model=model))
    assert made.plain()["sequence_len"] == 4096
    assert configured("h100", "1b").plain()["sequence_len"] == 2048


def test_a_turing_gpu_keeps_packed_rows_apart_by_a_mask() -> None:
    assert configured("t4", "1b").plain()["sdpa_varlen"] is False
    assert "sdpa_varlen" not in configured("l4", "1b").plain()


@pytest.mark.parametrize(
    ("gpu", "model", "environ"),
    [
        (gpu, model, environ)
        for gpu, model, environ in [
            *((gpu, "70b", {}) for gpu in ("t4", "l4", "a10", "rtx3090", "rtx4090", "rtx5090")),
            *((g, "70b", {"AXOLOTL_ADAPTER": "lora"}) for g in ("h100", "h200", "l40s", "a100-80")),
            *((g, "8b", {"AXOLOTL_ADAPTER": "null"}) for g in ("rtx4090", "l4", "t4", "a10g")),
            *((g, "q14", {"AXOLOTL_ADAPTER": "null"}) for g in ("l40s", "a6000", "a100", "h100")),
            *((g, "3b", {"AXOLOTL_ADAPTER": "null"}) for g in ("t4", "t4x2")),
            *((g, "70b", {"AXOLOTL_ADAPTER": "null"}) for g in ("h100", "h200x2", "h100x4")),
            *((g, "30b-a3b", {"AXOLOTL_ADAPTER": "lora"}) for g in ("t4", "l40s", "rtx4090")),
            ("t4", "q7", {"AXOLOTL_ADAPTER": "lora"}),
            ("h200", "8b", {"AXOLOTL_ADAPTER": "lora", "AXOLOTL_MICRO_BATCH_SIZE": "16",
                            "AXOLOTL_GRADIENT_CHECKPOINTING": "false"}),
            ("h100", "8b", {"AXOLOTL_MICRO_BATCH_SIZE": "64", "AXOLOTL_ADAPTER": "lora",
                            "AXOLOTL_GRADIENT_CHECKPOINTING": "false",
                            "AXOLOTL_SAMPLE_PACKING": "true"}),
            ("t4", "1b", {"AXOLOTL_MICRO_BATCH_SIZE": "64", "AXOLOTL_SEQUENCE_LEN": "131072"}),
        ]
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_three_ways_that_do(
    gpu: str, model: str, environ: dict[str, str]
) -> None:
    config = configured(gpu, model, None, **environ)
    [problem] = room.problems(config)
    assert problem.exit == Exit.MEMORY
    assert problem.name == "AXOLOTL_BASE_MODEL"
    assert "does not fit" in problem.message
    assert config.plan is not None
    found = levers.ways(config.plan)
    assert len(found) == 3
    for way in found:
        assert way.text in problem.message
        more = dict(way.settings)
        other = configured(more.pop(levers.MACHINE, gpu), model, None, **{**environ, **more})
        assert not list(room.problems(other)), way.text
        assert other.plan is not None
        assert other.plan.fits
    ignored = configured(gpu, model, None, **environ, SFT_IGNORE_MEMORY="true")
    assert not list(room.problems(ignored))
    assert any("SFT_IGNORE_MEMORY" in line for line in room.warnings(ignored))


def test_each_lever_makes_a_step_smaller_by_what_it_says() -> None:
    card, base = CARDS["h100"], memory.Choice("full", 8, 4096)
    found = levers.levers(shape("8b"), base, card)
    whole = memory.of(shape("8b"), base, card).needed
    assert [lever.text.split("=")[0] for lever in found] == [
        "AXOLOTL_MICRO_BATCH_SIZE", "AXOLOTL_MICRO_BATCH_SIZE", "AXOLOTL_GRADIENT_CHECKPOINTING",
        "AXOLOTL_GRADIENT_CHECKPOINTING", "AXOLOTL_OPTIMIZER", "AXOLOTL_SEQUENCE_LEN",
        "AXOLOTL_SEQUENCE_LEN", "AXOLOTL_SEQUENCE_LEN", "AXOLOTL_ADAPTER", "AXOLOTL_ADAPTER",
    ]  # fmt: skip
    assert all(lever.memory.needed < whole for lever in found)


def test_training_on_a_gpu_has_segments_that_grow_unless_the_user_says_otherwise() -> None:
    place = Place(Path("/runs/one"), "python", 4, "1:2", owner="1:2", gpus=1)
    made = configured("h100", "1b")
    name, old = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
    assert launch.train(made, place, {}, None).env[name] == "expandable_segments:True"
    assert launch.train(made, place, {name: "mine"}, None).env[name] == "mine"
    assert name not in launch.train(made, place, {old: "mine"}, None).env
    on_cpu = resolve(load(MODEL_AND_DATA), make_facts())
    assert name not in launch.train(on_cpu, place, {}, None).env


def test_experts_that_no_adapter_reaches_are_named() -> None:
    made = configured("h200", "30b-a3b")
    assert any("128 experts" in line for line in room.warnings(made))
    whole = configured("h200x8", "30b-a3b", AXOLOTL_ADAPTER="null")
    assert not any("experts" in line for line in room.warnings(whole))


def test_no_plan_is_made_of_what_the_formulas_do_not_cover() -> None:
    for key in planning._UNCOVERED:
        assert not planning._covered({key: 1})
    assert not planning._covered({"adapter": "llama-adapter"})
    assert not planning._covered({"optimizer": "muon"})
    assert planning._covered({"adapter": "lora", "optimizer": "adamw_torch"})


def test_the_liger_models_are_those_of_the_package() -> None:
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("liger_kernel")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0]) / "transformers" / "monkey_patch.py"
    table = source.read_text().split("MODEL_TYPE_TO_APPLY_LIGER_FN = {")[1].split("}")[0]
    assert set(planning._LIGER_MODELS) <= set(json.loads("[" + ",".join(
        f'"{line.split(chr(34))[1]}"' for line in table.splitlines() if chr(34) in line) + "]"))  # fmt: skip
