"""What the fast check refuses, warns of and translates, as tables of variables and lines."""

from dataclasses import replace

import pytest

from envtune.checks import conflicts, fit, preflight
from envtune.machine.hardware import Machine
from envtune.machine.pretended import PRETENDED, pretend
from envtune.resolve import owned, packing
from envtune.resolve.config import Parallel
from envtune.settings import axolotl_keys, retired
from tests.unit import builders
from tests.unit.builders import (
    AMPERE,
    CPU,
    MODEL_AND_DATA,
    here,
    load,
    make_facts,
    of_settings,
    resolved,
)


def refused(environ: dict[str, str], machine: Machine = AMPERE) -> list[str]:
    """Every line that `check` would print for AXOLOTL_* variables."""
    full = {**MODEL_AND_DATA, **{f"AXOLOTL_{name}": text for name, text in environ.items()}}
    if problems := builders.problems(full):
        return problems
    loaded = load(full)
    given = retired.translated(loaded)
    found = [*retired.problems(loaded), *of_settings(given)]
    return [str(p) for p in [*found, *here(given, make_facts(machine))]]


CONFLICTS = [
    ({"LOAD_IN_4BIT": "1", "LOAD_IN_8BIT": "1"}, "LOAD_IN_8BIT: is set and so is AXOLOTL_LOAD_IN_4BIT"),
    ({"BF16": "true", "FP16": "true"}, "FP16: is set and so is AXOLOTL_BF16"),
    ({"WARMUP_STEPS": "5", "WARMUP_RATIO": "0.1"}, "WARMUP_RATIO: is set and so is AXOLOTL_WARMUP_STEPS"),
    ({"BATCH_SIZE": "8", "GRADIENT_ACCUMULATION_STEPS": "2"}, "BATCH_SIZE: is set and so is"),
    ({"SAVE_STEPS": "5", "SAVES_PER_EPOCH": "2"}, "SAVE_STEPS: is set and so is AXOLOTL_SAVES_PER_EPOCH"),
    ({"EVAL_STEPS": "5", "EVALS_PER_EPOCH": "2"}, "EVAL_STEPS: is set and so is AXOLOTL_EVALS_PER_EPOCH"),
    ({"VAL_SET_SIZE": "0.1", "TEST_DATASETS": '[{"path": "a"}]'}, "TEST_DATASETS: is set and so is"),
    ({"CUT_CROSS_ENTROPY": "true", "LIGER_CROSS_ENTROPY": "true"}, "LIGER_CROSS_ENTROPY: is set and so is"),
    ({"ADAPTER": "lorra"}, "ADAPTER: 'lorra' is no adapter of Axolotl's; allowed: lora, qlora, llama-adapter or null; did you mean lora?"),
    ({"ADAPTER": "null", "LOAD_IN_4BIT": "1"}, "LOAD_IN_4BIT: freezes the weights, and without an adapter nothing is left to train; set qlora as AXOLOTL_ADAPTER"),
    ({"ADAPTER": "null", "LOAD_IN_8BIT": "1"}, "LOAD_IN_8BIT: freezes the weights"),
    ({"RL": "dpo", "LEARNING_RATE": "1e-5", "LOAD_IN_4BIT": "1"}, "LOAD_IN_4BIT: freezes the weights"),
    ({"ADAPTER": "qlora", "LOAD_IN_4BIT": "0"}, "LOAD_IN_4BIT: is off and AXOLOTL_ADAPTER is qlora"),
    ({"ADAPTER": "qlora", "LOAD_IN_8BIT": "1"}, "LOAD_IN_8BIT: excludes qlora"),
    ({"LORA_R": "null"}, "LORA_R: is null and an adapter needs it"),
    ({"LORA_ALPHA": "null"}, "LORA_ALPHA: is null and an adapter needs it"),
    ({"EVAL_STEPS": "5", "VAL_SET_SIZE": "0"}, "EVAL_STEPS: has no rows to evaluate on; set AXOLOTL_VAL_SET_SIZE=0.05"),
    ({"EVAL_STEPS": "5", "STREAMING": "1", "MAX_STEPS": "9"}, "EVAL_STEPS: has no rows to evaluate on; set AXOLOTL_TEST_DATASETS"),
    ({"EVAL_STEPS": "5", "EVAL_STRATEGY": "epoch"}, "EVAL_STEPS: is set and AXOLOTL_EVAL_STRATEGY is epoch"),
    ({"EVALS_PER_EPOCH": "5", "EVAL_STRATEGY": "epoch"}, "EVALS_PER_EPOCH: is set and AXOLOTL_EVAL_STRATEGY is epoch"),
    ({"EARLY_STOPPING_PATIENCE": "2"}, "EARLY_STOPPING_PATIENCE: needs AXOLOTL_SAVE_STEPS and AXOLOTL_EVAL_STEPS"),
    ({"EARLY_STOPPING_PATIENCE": "2", "SAVE_STEPS": "5", "EVAL_STEPS": "2"}, "EARLY_STOPPING_PATIENCE: needs"),
    ({"SAVE_STEPS": "5", "SAVE_STRATEGY": "epoch"}, "SAVE_STEPS: is set and AXOLOTL_SAVE_STRATEGY is epoch"),
    ({"SAVE_STRATEGY": "best"}, "SAVE_STRATEGY: is best; say by which metric"),
    ({"STREAMING": "1"}, "STREAMING: does not tell how many rows there are; set AXOLOTL_MAX_STEPS"),
    ({"STREAMING": "1", "MAX_STEPS": "5", "VAL_SET_SIZE": "0.1"}, "VAL_SET_SIZE: cannot split streamed rows (AXOLOTL_STREAMING)"),
    ({"SAMPLE_PACKING": "1", "ATTN_IMPLEMENTATION": "fp8"}, "ATTN_IMPLEMENTATION: is fp8, which lets packed rows see each other; choose one of eager, "),
    ({"SAMPLE_PACKING": "1", "ATTN_IMPLEMENTATION": "null"}, "ATTN_IMPLEMENTATION: is None, which lets packed rows"),
    ({"SAMPLE_PACKING": "1", "STREAMING": "1", "MAX_STEPS": "9"}, "SAMPLE_PACKING: packs a stream (AXOLOTL_STREAMING), and a resumed run would see other rows; unset one of the two, or set SFT_RESUME_FORCE=true"),
    ({"AUTO_FIND_BATCH_SIZE": "1"}, "AUTO_FIND_BATCH_SIZE: changes the batch while it trains, and a resumed run would see other ones; unset it and set AXOLOTL_MICRO_BATCH_SIZE, or set SFT_RESUME_FORCE=true"),
    ({"USE_TRACKIO": "1"}, "USE_TRACKIO: cannot be used: the trackio that Axolotl pins"),
    ({"COMET_PROJECT_NAME": "mine"}, "COMET_PROJECT_NAME: needs comet_ml, which is not installed"),
    ({"MLFLOW_TRACKING_URI": "sqlite:////no/where.db"}, "MLFLOW_TRACKING_URI: sqlite:////no/where.db: there is no folder /no"),
    ({"MLFLOW_TRACKING_URI": "file:/mlruns"}, "MLFLOW_TRACKING_URI: file:/mlruns is a store of files"),
    ({"CHAT_TEMPLATE": "jinja"}, "CHAT_TEMPLATE: needs AXOLOTL_CHAT_TEMPLATE_JINJA, not set"),
    ({"DO_BENCH_EVAL": "1"}, "DO_BENCH_EVAL: needs AXOLOTL_EVAL_STEPS or AXOLOTL_EVALS_PER_EPOCH"),
    ({"DPO_LOSS_TYPE": "ipo"}, "DPO_LOSS_TYPE: needs AXOLOTL_RL, not set"),
    ({"LARGE_HEAD_ATTENTION": "flash"}, "LARGE_HEAD_ATTENTION: 'flash' is not allowed; allowed:"),
    ({"SAMPLE_PACKING": "1", "RL": "dpo", "LEARNING_RATE": "1e-5"}, "SAMPLE_PACKING: packs no rows of RL"),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "line"), CONFLICTS, ids=lambda part: str(part)[:50])
def test_what_excludes_or_lacks_something_is_refused_in_one_line(
    environ: dict[str, str], line: str
) -> None:
    [told] = refused(environ)
    assert told.startswith(f"AXOLOTL_{line}")


ALLOWED: list[dict[str, str]] = [
    {"BF16": "auto", "FP16": "true"},
    {"LOAD_IN_8BIT": "1"},
    {"LOAD_IN_4BIT": "1"},
    {"ADAPTER": "qlora", "LOAD_IN_4BIT": "1"},
    {"ADAPTER": "mine", "PLUGINS": "axolotl.integrations.mora.MoraPlugin"},
    {"ADAPTER": "mora", "MORA__MORA_TYPE": "rope"},
    {"ADAPTER": "null", "LORA_R": "null", "LORA_ALPHA": "null", "LORA_DROPOUT": "null"},
    {"WARMUP_STEPS": "0", "WARMUP_RATIO": "0.1"},
    {"EVAL_STEPS": "5"},
    {"EVAL_STRATEGY": "no", "VAL_SET_SIZE": "0"},
    {"EVAL_STEPS": "5", "VAL_SET_SIZE": "0", "TEST_DATASETS": '[{"path": "a"}]'},
    {"EVAL_STEPS": "5", "EVAL_STRATEGY": "steps"},
    {"EARLY_STOPPING_PATIENCE": "2", "SAVE_STEPS": "4", "EVAL_STEPS": "2"},
    {"SAMPLE_PACKING": "1"},
    {"SAMPLE_PACKING": "1", "ATTN_IMPLEMENTATION": "eager"},
    {"SAMPLE_PACKING": "1", "ATTN_IMPLEMENTATION": "kernels-community/flash-attn2@v1:f"},
    {"BATCH_SIZE": "7"},
    {"OPTIMIZER": "muon", "LR_SCHEDULER": "rex"},
    {"OPTIMIZER": "paged_adamw_8bit", "LR_SCHEDULER": "warmup_stable_decay"},
]  # fmt: skip


@pytest.mark.parametrize("other", [{"FSDP": "full_shard"}, {"FSDP_CONFIG__OFFLOAD_PARAMS": "true"}])
def test_deepspeed_excludes_fsdp(other: dict[str, str]) -> None:
    lines = refused({"DEEPSPEED": '{"zero_optimization": {"stage": 2}}'} | other)
    assert any("is set and so is AXOLOTL_DEEPSPEED" in line for line in lines)


@pytest.mark.parametrize("name", ["AUTO_FIND_BATCH_SIZE", "SAMPLE_PACKING"])
def test_what_resumes_otherwise_is_taken_where_the_user_says_so(name: str) -> None:
    streams = {"STREAMING": "1", "MAX_STEPS": "9"} if name == "SAMPLE_PACKING" else {}
    environ = {f"AXOLOTL_{n}": text for n, text in {name: "1", **streams}.items()}
    forced = load({**MODEL_AND_DATA, **environ, "SFT_RESUME_FORCE": "true"})
    assert not of_settings(forced)


@pytest.mark.parametrize(
    "name", ["SAMPLE_PACKING", "STREAMING", "GROUP_BY_LENGTH", "CURRICULUM_SAMPLING"]
)
def test_what_resumes_exactly_is_not_warned_of(name: str) -> None:
    given = load({**MODEL_AND_DATA, f"AXOLOTL_{name}": "true"})
    assert not preflight.warnings(given, make_facts(AMPERE))


@pytest.mark.parametrize("kind", [*packing.MIXING, "llama"])
def test_a_model_that_mixes_packed_documents_is_refused_packing_by_name(kind: str) -> None:
    given = load({**MODEL_AND_DATA, "AXOLOTL_SAMPLE_PACKING": "true"})
    facts = make_facts(AMPERE, model_type=kind)
    said = [str(problem) for problem in fit.model_problems(given, facts)]
    wanted = (
        f"AXOLOTL_SAMPLE_PACKING: acme/Tiny-Llama is a model ({kind}) that lets packed documents "
        "see each other but by flash attention; set AXOLOTL_SAMPLE_PACKING=false"
    )
    assert said == ([] if kind == "llama" else [wanted])
    for more in (
        {"AXOLOTL_SAMPLE_PACKING": "false"},
        {"AXOLOTL_SAMPLE_PACKING": "true", "AXOLOTL_ATTN_IMPLEMENTATION": "flash_attention_2"},
    ):
        assert not list(fit.model_problems(load({**MODEL_AND_DATA, **more}), facts))


@pytest.mark.parametrize("environ", ALLOWED, ids=str)
def test_what_goes_together_is_not_refused(environ: dict[str, str]) -> None:
    assert not refused(environ)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"LEARNING_RATE": "-1"}, "LEARNING_RATE: '-1' is not allowed; allowed: a number"),
        ({"LEARNING_RATE": "0"}, "LEARNING_RATE: '0' is not allowed"),
        ({"LORA_R": "0"}, "LORA_R: '0' is not allowed; allowed: a whole number"),
        ({"LORA_R": "-8"}, "LORA_R: '-8' is not allowed"),
        ({"LORA_ALPHA": "0"}, "LORA_ALPHA: '0' is not allowed"),
        ({"LORA_DROPOUT": "1.5"}, "LORA_DROPOUT: '1.5' is not allowed"),
        ({"WARMUP_RATIO": "5"}, "WARMUP_RATIO: '5' is not allowed"),
        ({"VAL_SET_SIZE": "-0.1"}, "VAL_SET_SIZE: '-0.1' is not allowed"),
        ({"OPTIMIZER": "adamw_torc"}, "did you mean adamw_torch?"),
        ({"LR_SCHEDULER": "cosinee"}, "did you mean cosine?"),
        ({"HUB_STRATEGY": "every_safe"}, "did you mean every_save?"),
        ({"SAVE_STRATEGY": "step"}, "did you mean steps?"),
        ({"ATTN_IMPLEMENTATION": "flash_attention"}, "did you mean flash_attention_"),
        ({"ATTN_IMPLEMENTATION": "flash"}, "ATTN_IMPLEMENTATION: 'flash' is not allowed"),
        ({"SAVE_SAFETENSORS": "false"}, "SAVE_SAFETENSORS: 'false' is not allowed"),
        ({"LIGER_ROPE": "maybe"}, "LIGER_ROPE: 'maybe' is not allowed; allowed: true or false"),
        ({"LIGER_ROPPE": "true"}, "did you mean AXOLOTL_LIGER_ROPE?"),
    ],
)  # fmt: skip
def test_a_value_that_axolotl_would_take_and_fail_at_is_refused(
    environ: dict[str, str], told: str
) -> None:
    [line] = refused(environ)
    assert told in line


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"FLASH_ATTENTION": "true"}, "FLASH_ATTENTION: flash_attention_2 needs a GPU"),
        ({"ATTN_IMPLEMENTATION": "flex_attention"}, "ATTN_IMPLEMENTATION: flex_attention needs a GPU"),
        ({"ATTN_IMPLEMENTATION": "xformers"}, "ATTN_IMPLEMENTATION: xformers needs a GPU"),
        ({"BF16": "true"}, "BF16: True needs a GPU"),
        ({"BF16": "auto"}, "BF16: 'auto' needs a GPU"),
        ({"TF32": "true"}, "TF32: needs a GPU"),
        ({"FP8": "true"}, "FP8: needs a GPU"),
        ({"LORA_MLP_KERNEL": "true"}, "LORA_MLP_KERNEL: needs a GPU"),
        ({"LIGER_ROPE": "true"}, "LIGER_ROPE: needs a GPU"),
        ({"FSDP_CONFIG__OFFLOAD_PARAMS": "true"}, "FSDP_CONFIG: needs a GPU"),
    ],
)  # fmt: skip
def test_what_a_cpu_cannot_do_is_refused_there_and_not_on_a_gpu(
    environ: dict[str, str], line: str
) -> None:
    [told] = refused(environ, CPU)
    assert told.startswith(f"AXOLOTL_{line}")
    assert not refused(environ, AMPERE)


@pytest.mark.parametrize(
    "environ",
    [
        {"ATTN_IMPLEMENTATION": "eager"},
        {"TF32": "auto"},
        {"BF16": "false"},
        {"LIGER_ROPE": "false"},
    ],
    ids=str,
)
def test_what_a_cpu_can_do_is_not_refused(environ: dict[str, str]) -> None:
    assert not refused(environ, CPU)


@pytest.mark.parametrize("key", sorted(retired.REMOVED))
def test_a_removed_key_is_refused_with_what_to_do_instead(key: str) -> None:
    for text in ("true", "1", '{"factor": 2}', "FULL_STATE_DICT"):
        if not builders.problems({f"AXOLOTL_{key.upper()}": text}):
            [line] = refused({key.upper(): text})
            assert (
                line == f"AXOLOTL_{key.upper()}: was removed from Axolotl; {retired.REMOVED[key]}"
            )
            return
    pytest.fail(f"no text is allowed for {key}")


def test_a_removed_key_that_is_off_is_left_out() -> None:
    assert not refused({"S2_ATTENTION": "false", "DPO_NORM_LOSS": "false", "RPO_ALPHA": "null"})
    assert "s2_attention" not in resolved({"AXOLOTL_S2_ATTENTION": "false"}).plain()


@pytest.mark.parametrize(
    ("name", "text", "today"),
    [
        ("EVALUATION_STRATEGY", "epoch", {"eval_strategy": "epoch"}),
        ("NOISY_EMBEDDING_ALPHA", "5", {"neftune_noise_alpha": 5}),
        ("SDP_ATTENTION", "true", {"attn_implementation": "sdpa"}),
        ("FLASH_ATTN_D512", "true", {"large_head_attention": "auto"}),
        ("GC_STEPS", "4", {"torch_empty_cache_steps": 4, "gc_collect_steps": 4}),
        ("GC_STEPS", "-1", {"gc_collect_steps": -1}),
        ("GRADIENT_CHECKPOINTING", "offload", {"gradient_checkpointing": True, "activation_offloading": True}),
        ("GRADIENT_CHECKPOINTING", "offload_disk", {"gradient_checkpointing": True, "activation_offloading": "disk"}),
        ("LIGER_SWIGLU", "true", {"liger_glu_activation": True}),
    ],
)  # fmt: skip
def test_a_deprecated_key_becomes_todays_under_the_name_that_was_typed(
    name: str, text: str, today: dict[str, object]
) -> None:
    config = resolved({f"AXOLOTL_{name}": text}, make_facts(AMPERE))
    plain = config.plain()
    assert {key: plain[key] for key in today} == today
    assert {config.axolotl[key].source for key in today} == {f"AXOLOTL_{name}"}
    [warning] = config.warnings
    assert warning.startswith(f"AXOLOTL_{name}: is deprecated; taken as ")
    assert all(key in warning for key in today)
    assert name.lower() in today or name.lower() not in plain


def test_a_deprecated_flag_that_is_off_says_nothing() -> None:
    config = resolved({"AXOLOTL_FLASH_ATTENTION": "false", "AXOLOTL_XFORMERS_ATTENTION": "null"})
    assert not config.warnings
    assert config.plain()["attn_implementation"] == "sdpa"
    assert not {"flash_attention", "xformers_attention"} & config.plain().keys()


def test_a_key_that_axolotl_still_reads_stays_with_a_warning() -> None:
    config = resolved({"AXOLOTL_EVAL_TABLE_SIZE": "5"})
    assert config.plain()["eval_table_size"] == 5
    assert "generate_samples" in "".join(config.warnings)


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"FLASH_ATTENTION": "1", "ATTN_IMPLEMENTATION": "sdpa"}, "FLASH_ATTENTION: is the old name of AXOLOTL_ATTN_IMPLEMENTATION, which is set too"),
        ({"FLASH_ATTENTION": "1", "XFORMERS_ATTENTION": "1"}, "XFORMERS_ATTENTION: is set and so is AXOLOTL_FLASH_ATTENTION"),
        ({"EVALUATION_STRATEGY": "steps", "EVAL_STRATEGY": "epoch"}, "EVALUATION_STRATEGY: is the old name of AXOLOTL_EVAL_STRATEGY"),
        ({"EVALUATION_STRATEGY": "steppes"}, "EVALUATION_STRATEGY: 'steppes' is not allowed"),
    ],
)  # fmt: skip
def test_an_old_name_beside_its_new_one_has_to_say_the_same(
    environ: dict[str, str], line: str
) -> None:
    [told] = refused(environ)
    assert told.startswith(f"AXOLOTL_{line}")


def test_an_old_name_that_says_the_same_as_the_new_one_is_fine() -> None:
    assert not refused({"SDP_ATTENTION": "1", "ATTN_IMPLEMENTATION": "sdpa"})
    assert not refused({"SDP_ATTENTION": "1", "ATTN_IMPLEMENTATION": "null"})


@pytest.mark.parametrize(
    ("environ", "plugins"),
    [
        ({"LIGER_ROPE": "true"}, ["axolotl.integrations.liger.LigerPlugin"]),
        ({"LIGER_ROPE": "false"}, []),
        ({"CUT_CROSS_ENTROPY": "null"}, []),
        (
            {
                "LIGER_ROPE": "true",
                "CUT_CROSS_ENTROPY": "true",
                "PLUGINS": "acme.Plugin",
            },
            [
                "acme.Plugin",
                "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
                "axolotl.integrations.liger.LigerPlugin",
            ],
        ),
        (
            {"LIGER_ROPE": "true", "PLUGINS": "axolotl.integrations.liger.plugin.LigerPlugin"},
            ["axolotl.integrations.liger.plugin.LigerPlugin"],
        ),
    ],
    ids=str,
)
def test_a_key_of_a_plugin_turns_the_plugin_on_once(
    environ: dict[str, str], plugins: list[str]
) -> None:
    config = resolved({f"AXOLOTL_{name}": text for name, text in environ.items()})
    assert config.plain()["plugins"] == [owned.PLUGIN, *plugins]


def test_every_key_in_the_tables_exists() -> None:
    fields = axolotl_keys.schema().fields
    named = {
        *(key for pair in conflicts._ONE_OF for key in pair), *retired.RENAMED,
        *retired.RENAMED.values(), *retired.FLAGS, *retired.REMOVED, *retired.KEPT,
        *(key for key, _ in retired.FLAGS.values()),
        *(key for key in conflicts._GPU_ONLY if not key.endswith("_")), "activation_offloading",
    }  # fmt: skip
    assert not named - fields.keys()


@pytest.mark.parametrize(
    ("text", "name", "count", "capability", "gib"),
    [
        ("h100x8", "H100", 8, (9, 0), 79.6),
        ("rtx3090", "3090", 1, (8, 6), 24.0),
        ("rtx3090x2", "3090", 2, (8, 6), 24.0),
        ("a100", "40GB", 1, (8, 0), 40.0),
        ("a100-80x4", "80GB", 4, (8, 0), 80.0),
        (" t4\n", "T4", 1, (7, 5), 15.0),
    ],
)
def test_a_pretended_machine_is_that_many_of_that_gpu(
    text: str, name: str, count: int, capability: tuple[int, int], gib: float
) -> None:
    machine = pretend(text)
    assert len(machine.gpus) == count
    assert len(set(machine.gpus)) == 1
    assert name in machine.gpus[0].name
    assert machine.gpus[0].capability == capability
    assert machine.gpus[0].memory / 2**30 == pytest.approx(gib, abs=0.1)
    assert machine.cores == 8 * count


def test_every_gpu_of_the_table_can_be_asked_for() -> None:
    for name in PRETENDED:
        assert not builders.problems({"SFT_PRETEND_GPU": f"{name}x2"})


@pytest.mark.parametrize("text", ["h1000", "h100x0", "h100x", "8xh100", "x8", "H100 x8"])
def test_a_gpu_that_nobody_knows_is_refused_with_those_that_are_known(text: str) -> None:
    [line] = builders.problems({"SFT_PRETEND_GPU": text})
    assert line.startswith("SFT_PRETEND_GPU: ")
    assert "rtx4090" in line


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"SFT_RESPONSE_TEMPLATE": "Answer:"},
            "SFT_RESPONSE_TEMPLATE: masks nothing; the type of the data says what trains",
        ),
        (
            {"AXOLOTL_BATCH_SIZE": "8", "AXOLOTL_MICRO_BATCH_SIZE": "3"},
            "AXOLOTL_BATCH_SIZE: 8 is no multiple of 3 micro x 1 world; a step takes 6",
        ),
        (
            {"AXOLOTL_EVALS_PER_EPOCH": "4", "AXOLOTL_VAL_SET_SIZE": "0"},
            "AXOLOTL_EVALS_PER_EPOCH: no rows are held back, so nothing is evaluated",
        ),
        (
            {"AXOLOTL_ADAPTER": "lora", "AXOLOTL_LOAD_IN_4BIT": "1"},
            "AXOLOTL_LOAD_IN_4BIT: does nothing with lora in Axolotl; AXOLOTL_ADAPTER=qlora quantises",
        ),
    ],
)
def test_what_does_nothing_is_told(environ: dict[str, str], line: str) -> None:
    given = load({**MODEL_AND_DATA, **environ})
    assert preflight.warnings(given, make_facts()) == (line,)


def test_a_template_that_masks_says_nothing() -> None:
    raw = {"AXOLOTL_DATASETS": '[{"path": "acme/rows"}]', "SFT_RESPONSE_TEMPLATE": "Answer:"}
    assert preflight.warnings(load({**MODEL_AND_DATA, **raw}), make_facts()) == ()


@pytest.mark.parametrize(("steps", "told"), [("8", 1), ("16", 0)])
def test_grpo_needs_a_group_of_answers_for_each_process(steps: str, told: int) -> None:
    raw = {
        "AXOLOTL_RL": "grpo", "AXOLOTL_TRL": '{"num_generations": 4}',
        "AXOLOTL_MICRO_BATCH_SIZE": "2", "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": steps,
    }  # fmt: skip
    facts = replace(make_facts(pretend("h100x8")), parallel=Parallel("fsdp2", 8))
    said = [str(problem) for problem in conflicts.generations(load(raw), facts)]
    assert len(said) == told
    assert all(line.endswith("set it to 16 or more") for line in said)
