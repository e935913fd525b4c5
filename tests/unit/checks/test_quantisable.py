"""What is told of a quantisation before anything trains, and in which groups it is done."""

import sys
from pathlib import Path
from typing import Any

import pytest

from envtune import venvs
from envtune.checks import quantisable
from envtune.engine.quantise.schemes import group_size
from envtune.errors import Refused
from tests.unit.builders import MODEL_AND_DATA, load, make_facts

NOWHERE = {"SFT_LLMCOMPRESSOR_VENV": "/nowhere"}


def told(environ: dict[str, str], **model: Any) -> list[str]:
    """Every line, with an environment that is there unless `environ` names another."""
    here = {"SFT_QUANTISE": "w4a16", "SFT_LLMCOMPRESSOR_VENV": sys.prefix}
    given = load({**MODEL_AND_DATA, **here, **environ})
    found = (quantisable.problems(given), quantisable.model_problems(given, make_facts(**model)))
    return [str(problem) for problems in found for problem in problems]


REFUSED: list[tuple[dict[str, str], dict[str, Any], str]] = [
    (NOWHERE, {}, "SFT_LLMCOMPRESSOR_VENV: /nowhere has no bin/python; `make setup-quantise` makes"),
    ({"AXOLOTL_STREAMING": "1"}, {}, "SFT_QUANTISE: w4a16 is tried on prepared rows of tokens, and AXOLOTL_STREAMING keeps none; unset it"),
    ({"AXOLOTL_RL": "dpo"}, {}, "SFT_QUANTISE: w4a16 is tried on prepared rows of tokens, and those of this training are none"),
    ({}, {"num_experts": 8}, "SFT_QUANTISE: acme/Tiny-Llama is a mixture of experts"),
    ({}, {"text_config": {"num_local_experts": 8}}, "is a mixture of experts"),
    ({}, {"architectures": ["Gemma3ForConditionalGeneration"]}, "acme/Tiny-Llama is a Gemma3ForConditionalGeneration, and only language models"),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "model", "line"), REFUSED)
def test_what_cannot_be_quantised_is_one_line(
    environ: dict[str, str], model: dict[str, Any], line: str
) -> None:
    [found] = told(environ, **model)
    assert line in found


ACCEPTED: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({}, {"architectures": ["LlamaForCausalLM"], "num_experts": None}),
    ({}, {"architectures": ["Qwen3ForCausalLM"], "num_local_experts": 1}),
    ({"SFT_QUANTISE": "null", "AXOLOTL_STREAMING": "1"}, {"num_experts": 8}),
    ({**NOWHERE, "SFT_PRETEND_GPU": "h100"}, {}),
]


@pytest.mark.parametrize(("environ", "model"), ACCEPTED)
def test_what_can_be_quantised_costs_no_word(
    environ: dict[str, str], model: dict[str, Any]
) -> None:
    assert told(environ, **model) == []


def test_an_environment_is_the_one_named_or_lies_beside_the_one_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert venvs.find(None, ".venv-other") is None
    for name in (".venv-other", "named"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "python").symlink_to(sys.executable)
    assert venvs.find(None, ".venv-other") == tmp_path / ".venv-other/bin/python"
    assert venvs.find(str(tmp_path / "named"), ".venv-other") == tmp_path / "named/bin/python"


@pytest.mark.parametrize(
    ("inputs", "size"),
    [((4096, 11008), 128), ((4096, 5504), 128), ((576, 1536), 64), ((4096, 96), 32)],
)
def test_groups_are_the_largest_that_fit_every_layer(inputs: tuple[int, ...], size: int) -> None:
    assert group_size({f"layer{number}": width for number, width in enumerate(inputs)}) == size


def test_a_layer_that_fits_no_group_is_named() -> None:
    with pytest.raises(Refused, match=r"groups of 32 inputs at least, and b has 200; use fp8"):
        group_size({"a": 128, "b": 200, "c": 72})
