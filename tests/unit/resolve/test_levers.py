"""What is named where a GPU's memory was not enough, and what each would save."""

import pytest

from envtune.resolve.levers import best

LLAMA = {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256}


@pytest.mark.parametrize(
    ("plain", "named"),
    [
        ({"adapter": "lora", "micro_batch_size": 4, "gradient_accumulation_steps": 4, "sequence_len": 2048},
         ["AXOLOTL_GRADIENT_CHECKPOINTING=true",
          "AXOLOTL_MICRO_BATCH_SIZE=2 with AXOLOTL_GRADIENT_ACCUMULATION_STEPS=8", "AXOLOTL_SEQUENCE_LEN=1024"]),
        ({"adapter": "lora", "micro_batch_size": 1, "sequence_len": 2048, "gradient_checkpointing": True},
         ["AXOLOTL_ADAPTER=qlora", "AXOLOTL_CHUNKED_CROSS_ENTROPY=true", "AXOLOTL_SEQUENCE_LEN=1024"]),
        ({"micro_batch_size": 1, "sequence_len": 2048, "gradient_checkpointing": True},
         ["AXOLOTL_ADAPTER=lora", "AXOLOTL_OPTIMIZER=adamw_8bit", "AXOLOTL_CHUNKED_CROSS_ENTROPY=true"]),
        ({"adapter": "qlora", "micro_batch_size": 3, "sequence_len": 512, "gradient_checkpointing": True,
          "chunked_cross_entropy": True}, ["AXOLOTL_MICRO_BATCH_SIZE=1"]),
    ],
)  # fmt: skip
def test_the_three_levers_that_save_most_are_named_the_largest_first(
    plain: dict[str, object], named: list[str]
) -> None:
    found = best(plain, LLAMA)
    assert [lever.setting for lever in found] == named
    assert [lever.saves for lever in found] == sorted((v.saves for v in found), reverse=True)


def test_nothing_that_is_done_already_is_named_again() -> None:
    for plain in ({"gradient_checkpointing": True}, {"adapter": "qlora"}, {"micro_batch_size": 1}):
        named = " ".join(lever.setting for lever in best(plain, LLAMA, 9))
        for key in plain:
            assert f"AXOLOTL_{key.upper()}=" not in named or key == "adapter"


def test_the_halved_batch_saves_half_of_what_grows_with_it() -> None:
    size = {"adapter": "lora", "micro_batch_size": 4, "sequence_len": 2048}
    [halved] = [v for v in best(size, LLAMA, 9) if "MICRO" in v.setting]
    [again] = [v for v in best({**size, "micro_batch_size": 8}, LLAMA, 9) if "MICRO" in v.setting]
    assert again.saves == pytest.approx(2 * halved.saves)


@pytest.mark.parametrize("config", [{}, {"hidden_size": 64}, {"hidden_size": "x"}])
def test_a_model_of_unknown_size_has_no_lever(config: dict[str, object]) -> None:
    assert best({"micro_batch_size": 4}, config) == []


def test_a_model_with_a_part_for_text_is_measured_by_it() -> None:
    assert best({"micro_batch_size": 4}, {"text_config": LLAMA}) == best(
        {"micro_batch_size": 4}, LLAMA
    )
