"""What vLLM is told, what is refused before it starts, and how an answer is judged."""

import math
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envtune.errors import Refused
from envtune.machine import ports
from envtune.serve import vllm_config
from envtune.serve.models import Served
from envtune.settings import loading, typed, upstream
from envtune.settings.own import SERVE_FLAGS
from envtune.settings.sources import read, with_documents
from envtune.stages import parity
from envtune.stages.parity import TOKENS, Compared

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "num_attention_heads": 8, "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}  # fmt: skip
WHOLE = Served(Path("/run/model"), ("run1",), "model", CONFIG)
ADAPTER = Served(
    Path("/base"), ("base",), "adapter", CONFIG,
    adapters={"run1": Path("/run/serving/adapter")}, rank=16,
    tokenizer=Path("/run/serving/adapter"), chat_template=Path("/run/serving/t.jinja"),
)  # fmt: skip
CPU = vllm_config.Place("cpu", 0, 24 * 2**30, 25)


def gpus(count: int) -> vllm_config.Place:
    return vllm_config.Place("cuda", count, 64 * 2**30, 25)


def test_a_cpu_serves_exactly_and_leaves_memory() -> None:
    told = vllm_config.config(ADAPTER, {}, CPU)
    assert (told["dtype"], told["enforce_eager"]) == ("float32", True)
    assert told["kv_cache_memory_bytes"] == 24 * 2**30 // 16
    quantised = Served(
        Path("/m"), ("r",), "merged_awq", {**CONFIG, "quantization_config": {"a": 1}}
    )
    assert "dtype" not in vllm_config.config(quantised, {}, CPU)


def test_an_adapter_answers_by_name_with_a_rank_and_slots_that_are_enough() -> None:
    told = vllm_config.config(ADAPTER, {"max_lora_rank": 8, "max_loras": 1}, CPU)
    assert told["lora_modules"] == ["run1=/run/serving/adapter"]
    assert (told["max_loras"], told["max_lora_rank"]) == (2, 16)
    assert vllm_config.config(ADAPTER, {}, gpus(1))["max_loras"] == 1
    assert vllm_config.config(ADAPTER, {"max_lora_rank": 64}, CPU)["max_lora_rank"] == 64
    assert told["tokenizer"] == "/run/serving/adapter"
    assert told["chat_template"] == "/run/serving/t.jinja"
    assert told["served_model_name"] == ["base"]
    assert "enable_lora" not in vllm_config.config(WHOLE, {}, CPU)


def test_where_the_users_flags_win_over_what_was_trained_it_is_told() -> None:
    what = replace(ADAPTER, generation_config=Path("/run/serving"))
    told = vllm_config.config(what, {}, CPU)
    assert told["generation_config"] == "/run/serving"
    [beside] = vllm_config.notes(what, {})
    assert beside == "base beside the adapter is asked in the layout that the adapter learned"
    flags = {"chat_template": "/mine.jinja", "generation_config": "vllm"}
    assert vllm_config.config(what, flags, CPU)["chat_template"] == "/mine.jinja"
    lines = list(vllm_config.notes(what, flags))
    assert [line.split()[0] for line in lines] == [
        "SFT_SERVE_CHAT_TEMPLATE", "SFT_SERVE_GENERATION_CONFIG",
    ]  # fmt: skip
    assert list(vllm_config.notes(WHOLE, {})) == []


def test_what_the_user_set_stays() -> None:
    flags = {"port": 9000, "dtype": "bfloat16", "tokenizer": "/mine", "served_model_name": ["x"]}
    told = vllm_config.config(ADAPTER, flags, CPU)
    assert (told["port"], told["dtype"], told["tokenizer"]) == (9000, "bfloat16", "/mine")
    assert told["served_model_name"] == ["base"], "the name is the adapter's"


def test_requests_are_finished_within_the_grace() -> None:
    assert vllm_config.config(WHOLE, {}, CPU)["shutdown_timeout"] == 19
    short = vllm_config.Place("cpu", 0, 2**30, 3)
    assert vllm_config.config(WHOLE, {}, short)["shutdown_timeout"] == 0


@pytest.mark.parametrize(("there", "used"), [(0, 1), (1, 1), (2, 2), (3, 2), (8, 4), (6, 4)])
def test_the_heads_are_shared_out_to_as_many_gpus_as_divide_them(there: int, used: int) -> None:
    assert vllm_config.config(WHOLE, {}, gpus(there))["tensor_parallel_size"] == used


@pytest.mark.parametrize(
    ("what", "flags", "place", "said"),
    [
        (WHOLE, {"api_key": ["k"]}, CPU, "SFT_SERVE_API_KEY: set VLLM_API_KEY"),
        (WHOLE, {"model": "x"}, CPU, "SFT_SERVE_MODEL: the run's own is served"),
        (WHOLE, {"max_model_len": 513}, CPU, "513 is more than the 512 positions"),
        (WHOLE, {"tensor_parallel_size": 2}, gpus(1), "2 is more than the 1 GPUs"),
        (
            Served(**{**vars(ADAPTER), "config": {"architectures": ["GPT2LMHeadModel"]}}),
            {}, CPU, "vLLM serves no adapter of a GPT2LMHeadModel",
        ),
    ],
)  # fmt: skip
def test_what_vllm_would_say_late_is_said_first(
    what: Served, flags: dict[str, Any], place: vllm_config.Place, said: str
) -> None:
    [problem] = vllm_config.problems(what, flags, place)
    assert said in str(problem)


def test_stretched_positions_are_vllms_to_judge() -> None:
    stretched = Served(**{**vars(WHOLE), "config": {**CONFIG, "rope_scaling": {"factor": 4}}})
    assert not list(vllm_config.problems(stretched, {"max_model_len": 2048}, CPU))


def test_every_owned_flag_is_one_of_vllms() -> None:
    assert vllm_config.OWNED.keys() <= upstream.vllm()["flags"].keys()


def loaded(**environ: str) -> typed.Settings:
    return loading.load(with_documents(read((), environ)))


def test_a_flag_is_a_variable_of_its_own() -> None:
    found = loaded(
        SFT_SERVE_ARGS='{"max_num_seqs": 4, "dtype": "half"}', SFT_SERVE_MAX_MODEL_LEN="2k",
        SFT_SERVE_ENABLE_PREFIX_CACHING="no", SFT_SERVE_SERVED_MODEL_NAME="a,b",
    )  # fmt: skip
    assert found.get(SERVE_FLAGS) == {
        "max_num_seqs": 4, "dtype": "half", "max_model_len": "2k",
        "enable_prefix_caching": False, "served_model_name": ["a", "b"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SFT_SERVE_PORT", "http", "'http' is not allowed; allowed: a whole number"),
        ("SFT_SERVE_MAX_LORA_RANK", "24", "one of 1, 8, 16, 32, 64"),
        ("SFT_SERVE_MAX_MODEL_LENGTH", "1", "did you mean SFT_SERVE_MAX_MODEL_LEN?"),
        ("SFT_SERVE_ARGS", '{"prot": 1}', "prot"),
    ],
)
def test_a_slip_in_a_flag_is_told(name: str, value: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        loaded(**{name: value})
    assert said in str(refused.value)
    assert str(refused.value).startswith(name)


def test_a_port_that_somebody_has_is_in_use() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        assert "is in use" in ports.in_use("127.0.0.1", one.getsockname()[1])
    assert ports.in_use("127.0.0.1", ports.free()) == ""
    assert "is no port" in ports.in_use("127.0.0.1", 70000)
    assert "192.0.2.1" in ports.in_use("192.0.2.1", 8000)


def answered(equal: int = TOKENS, difference: float = 1e-6) -> Compared:
    return Compared(equal, [difference] * equal, [2.0] * TOKENS)


def test_equal_tokens_of_nearly_equal_probability_are_a_proof() -> None:
    told = parity._judged([answered()] * 7, exact=True)
    assert (told["outcome"], told["equal"]) == ("done", True)
    assert told["checks"] == [
        "vLLM answers as trained: 7 x 48 tokens equal, logprobs within 1.0e-06"
    ]
    assert told["base_mean_difference"] == 2.0


@pytest.mark.parametrize(
    ("bad", "exact", "why"),
    [
        (answered(3), True, "answer 2 of 3 differs from token 4 on"),
        (answered(0), True, "differs from token 1 on"),
        (answered(difference=0.01), True, "a logprob differs by 1.0e-02, more than 0.001"),
        (answered(difference=math.nan), True, "a logprob differs by 1.0e+09"),
        (answered(difference=0.9), False, "logprobs differ by 0.3 in the mean, more than 0.1"),
        (answered(difference=math.nan), False, "logprobs differ by 3.3e+08 in the mean"),
    ],
)
def test_any_other_answer_is_none(bad: Compared, exact: bool, why: str) -> None:
    told = parity._judged([answered(), bad, answered()], exact=exact)
    assert (told["outcome"], told["exit"]) == ("failed", 6)
    assert why in told["message"]
