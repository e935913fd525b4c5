"""Names, nesting, precedence, and every problem at once."""

from typing import Any

import pytest

from envtune import redaction
from envtune.settings import axolotl_keys, sources, upstream
from envtune.settings.own import OWN
from tests.unit.builders import MODEL_AND_DATA, load, of_settings, problems, resolved, values

NAMES = [f"AXOLOTL_{key.upper()}" for key in axolotl_keys.schema().fields]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"AXOLOTL_LORA_R": "8"}, {"lora_r": 8}),
        ({"AXOLOTL_LEARNING_RATE": "2e-4"}, {"learning_rate": 0.0002}),
        ({"AXOLOTL_ADAPTER": "null"}, {"adapter": None}),
        ({"AXOLOTL_DATASETS__0__PATH": "a.jsonl"}, {"datasets": [{"path": "a.jsonl"}]}),
        (
            {"AXOLOTL_DATASETS__1__PATH": "b", "AXOLOTL_DATASETS__0__PATH": "a"},
            {"datasets": [{"path": "a"}, {"path": "b"}]},
        ),
        (
            {"AXOLOTL_DATASETS": '[{"path": "a"}]', "AXOLOTL_DATASETS__0__TYPE": "alpaca"},
            {"datasets": [{"path": "a", "type": "alpaca"}]},
        ),
        (
            {"AXOLOTL_DATASETS": '[{"path": "a"}]', "AXOLOTL_DATASETS__1__PATH": "b"},
            {"datasets": [{"path": "a"}, {"path": "b"}]},
        ),
        (
            {
                "AXOLOTL_DATASETS__0__PATH": "a",
                "AXOLOTL_DATASETS__0__TYPE__FIELD_INSTRUCTION": "q",
                "AXOLOTL_DATASETS__0__TYPE__FORMAT": "{instruction}",
            },
            {"datasets": [{"path": "a", "type": {"field_instruction": "q", "format": "{instruction}"}}]},
        ),
        ({"AXOLOTL_SPECIAL_TOKENS__PAD_TOKEN": "</s>"}, {"special_tokens": {"pad_token": "</s>"}}),
        ({"AXOLOTL_LORA_TARGET_MODULES": "q,v"}, {"lora_target_modules": ["q", "v"]}),
        (
            {"AXOLOTL_LORA_TARGET_MODULES__0": "q", "AXOLOTL_LORA_TARGET_MODULES__1": "v"},
            {"lora_target_modules": ["q", "v"]},
        ),
        ({"AXOLOTL_OTEL_METRICS_PORT": "9090"}, {"otel_metrics_port": 9090}),
        ({"AXOLOTL_MAX_MEMORY__CPU": "2GiB"}, {"max_memory": {"cpu": "2GiB"}}),
        pytest.param(
            {"AXOLOTL_MAX_MEMORY__0": "2GiB"}, {"max_memory": {"0": "2GiB"}},
        ),
        pytest.param(
            {"AXOLOTL_GRADIENT_CHECKPOINTING_KWARGS__USE_REENTRANT": "false"},
            {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        ),
        pytest.param(
            {f"AXOLOTL_DATASETS__{i}__PATH": f"d{i}" for i in range(11)},
            {"datasets": [{"path": f"d{i}"} for i in range(11)]},
        ),
        pytest.param(
            {"AXOLOTL_DATASETS__0__TYPE__FORMAT": "x", "AXOLOTL_DATASETS__1__PATH": "b"},
            {"datasets": [{"type": {"format": "x"}}, {"path": "b"}]},
        ),
    ],
)  # fmt: skip
def test_a_name_leads_to_its_value(environ: dict[str, str], expected: dict[str, Any]) -> None:
    assert repr(values(environ)) == repr(expected)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("AXOLOTL_LERNING_RATE", "1", "did you mean AXOLOTL_LEARNING_RATE?"),
        ("AXOLOTL_MICROBATCH_SIZE", "1", "did you mean AXOLOTL_MICRO_BATCH_SIZE?"),
        ("AXOLOTL_LORA__R", "8", "did you mean AXOLOTL_LORA_R?"),
        ("SFT_STRICKT", "1", "did you mean SFT_STRICT?"),
        ("axolotl_base_model", "x", "did you mean AXOLOTL_BASE_MODEL?"),
        ("Axolotl_Base_Model", "x", "did you mean AXOLOTL_BASE_MODEL?"),
        ("sft_rerun", "1", "did you mean SFT_RERUN?"),
        ("AXOLOTL_DATASETS__0__PATHH", "x", "did you mean path?"),
        ("AXOLOTL_DATASETS", '[{"pathh": "x"}]', "did you mean path?"),
        ("AXOLOTL_LORA_R", "many", "allowed: a whole number"),
        ("AXOLOTL_LORA_R__X", "8", "no part of its own"),
        ("AXOLOTL_DATASETS__", "x", "allowed"),
        ("AXOLOTL_DATASETS__1__PATH", "x", "first (no gap)"),
        ("AXOLOTL_DATASETS", "[{", "not JSON"),
        ("AXOLOTL_LEARNING_RATE", "fast", "a number"),
        ("AXOLOTL_LEARNING_RATE", "0", "> 0"),
        ("AXOLOTL_LEARNING_RATE", "nan", "a number"),
        ("AXOLOTL_RL", "dop", "did you mean dpo?"),
        ("SFT_DEVICE", "gpu", "one of auto, cpu, cuda"),
        ("SFT_GRACE_SECONDS", "0", ">= 1"),
        ("FORCE_RUN_INDEX", "-1", ">= 1"),
        pytest.param(
            "AXOLOTL_NCCL_TIMOUT", "9", "did you mean AXOLOTL_NCCL_TIMEOUT?",
        ),
        pytest.param(
            "AXOLOTL_Base_Model", "x", "did you mean AXOLOTL_BASE_MODEL?",
        ),
    ],
)  # fmt: skip
def test_a_wrong_name_or_value_is_refused_with_the_fix(name: str, text: str, told: str) -> None:
    [line] = problems({name: text})
    assert line.startswith(f"{name}: ")
    assert told in line


def test_every_problem_is_told_at_once() -> None:
    environ = {
        "AXOLOTL_LORA_R": "x", "AXOLOTL_LORA_ALPHA": "y", "AXOLOTL_NO_SUCH": "1", "SFT_NO": "1",
        "AXOLOTL_DATASETS__0__PATHH": "z", "SFT_RERUN": "perhaps",
    }  # fmt: skip
    told = {line.split(":")[0] for line in problems(environ)}
    assert told == set(environ)


def test_a_problem_is_one_line_and_short_however_long_the_value() -> None:
    [line] = problems({"AXOLOTL_LORA_R": "x\ny" * 10_000})
    assert "\n" not in line
    assert len(line) < 250


def test_without_strictness_an_unknown_name_is_a_warning_and_a_wrong_value_is_not() -> None:
    loose = load({"AXOLOTL_LERNING_RATE": "1", "SFT_STRICT": "false"})
    assert "AXOLOTL_LEARNING_RATE" in "".join(loose.warnings)
    assert not loose.axolotl
    assert problems({"AXOLOTL_LORA_R": "x", "SFT_STRICT": "false"})


def test_an_empty_variable_counts_as_not_set_and_is_told() -> None:
    found = load({"AXOLOTL_LORA_R": "", "SFT_DEVICE": ""})
    assert not found.axolotl
    assert not found.own
    assert len(found.warnings) == 2


def test_an_empty_value_on_the_command_line_is_no_value() -> None:
    assert "base_model" not in values({}, ["AXOLOTL_BASE_MODEL="])


LINKS = {
    "SFT_TRAINER_PORT": "tcp://10.0.0.1:80",
    "SFT_TRAINER_PORT_80_TCP": "tcp://10.0.0.1:80",
    "SFT_TRAINER_PORT_80_TCP_ADDR": "10.0.0.1",
    "SFT_TRAINER_PORT_80_TCP_PORT": "80",
    "SFT_TRAINER_PORT_80_TCP_PROTO": "tcp",
    "SFT_TRAINER_SERVICE_HOST": "10.0.0.1",
    "SFT_TRAINER_SERVICE_PORT": "80",
    "SFT_TRAINER_SERVICE_PORT_HTTP": "80",
    "AXOLOTL_SERVICE_HOST": "10.0.0.1",
    "AXOLOTL_PORT": "tcp://10.0.0.1:80",
    "AXOLOTL_PORT_53_UDP": "udp://10.0.0.1:53",
}


def test_kubernetes_service_links_are_ignored_aloud() -> None:
    found = load(LINKS)
    assert not found.axolotl
    assert {w.split()[0] for w in found.warnings} == set(LINKS)


def test_a_port_without_an_address_is_no_service_link() -> None:
    assert problems({"SFT_TRAINER_PORT": "8000"})


def test_no_setting_is_ever_taken_for_a_service_link() -> None:
    linked = [name for name in [*NAMES, *OWN] if sources._is_service_link(name, "1")]
    assert not linked


def test_a_variable_that_axolotl_reads_itself_is_never_a_setting() -> None:
    found = load(dict.fromkeys(upstream.axolotl()["reserved"], "1"))
    assert not found.axolotl
    assert not found.warnings


def test_variables_of_others_are_left_alone() -> None:
    others = {"HF_TOKEN": "x", "WANDB_PROJECT": "x", "VLLM_PORT": "1", "PATH": "/bin", "RANK": "0"}
    assert load(others).warnings == ()


def test_the_command_line_wins_over_the_environment() -> None:
    both = load(
        {"AXOLOTL_LORA_R": "8", "SFT_DEVICE": "cpu"}, ["AXOLOTL_LORA_R=9", "SFT_DEVICE=cuda"]
    )
    assert (both.axolotl["lora_r"].value, both.axolotl["lora_r"].layer) == (9, "command line")
    assert both.get("SFT_DEVICE") == "cuda"


def test_an_argument_may_hold_an_equals_sign() -> None:
    assert values({}, ["AXOLOTL_BASE_MODEL=a=b"]) == {"base_model": "a=b"}


@pytest.mark.parametrize(
    ("environ", "argument", "expected"),
    [
        pytest.param(
            {"AXOLOTL_DATASETS__0__PATH": "a"}, "AXOLOTL_DATASETS__0__PATH=b", [{"path": "b"}],
        ),
        pytest.param(
            {"AXOLOTL_DATASETS": '[{"path": "a"}]'}, "AXOLOTL_DATASETS__0__PATH=b",
            [{"path": "b"}],
        ),
        ({"AXOLOTL_DATASETS__0__PATH": "a"}, 'AXOLOTL_DATASETS=[{"path": "b"}]', [{"path": "b"}]),
    ],
)  # fmt: skip
def test_the_command_line_wins_inside_a_value_too(
    environ: dict[str, str], argument: str, expected: list[dict[str, str]]
) -> None:
    assert values(environ, [argument]) == {"datasets": expected}


@pytest.mark.parametrize(
    "environ",
    [
        {"AXOLOTL_DATASETS": '[{"path": "a"}]', "AXOLOTL_DATASETS__0__PATH": "b"},
        pytest.param(
            {"AXOLOTL_LORA_TARGET_MODULES": '["a"]', "AXOLOTL_LORA_TARGET_MODULES__0": "b"},
        ),
        pytest.param(
            {"AXOLOTL_DATASETS__0__TYPE": "alpaca", "AXOLOTL_DATASETS__0__TYPE__FORMAT": "x"},
        ),
    ],
)
def test_one_meaning_twice_in_one_layer_is_refused(environ: dict[str, str]) -> None:
    assert problems(environ)


def test_the_secrets_are_the_values_that_a_log_may_not_hold() -> None:
    inputs = sources.read((), {"HF_TOKEN": "hf_plant", "WANDB_API_KEY": "", "AXOLOTL_RL": "dpo"})
    assert inputs.secrets == ("hf_plant",)
    assert redaction.redact("a hf_plant b hf_plant", inputs.secrets) == "a [secret] b [secret]"


def test_a_secret_that_is_part_of_another_leaves_nothing_of_the_longer_one() -> None:
    assert "tail" not in redaction.redact("key-tail", ("key", "key-tail"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AXOLOTL_COMET_API_KEY", "plant"),
        ("AXOLOTL_BASE_MODEL", "https://me:plant@host/model"),
        ("AXOLOTL_PRETRAINING_DATASET", '[{"path": "https://me:plant@host/rows"}]'),
    ],
)
def test_a_secret_never_reaches_the_configuration(name: str, text: str) -> None:
    given = {**MODEL_AND_DATA, name: text}
    refused = problems(given) or of_settings(load(given))
    assert refused or "plant" not in str(resolved({name: text}).plain())
