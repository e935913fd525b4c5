"""What is fetched of a repository, how long to wait between two tries, and what is shown."""

import logging

import pytest

from envtune.artifacts import selection
from envtune.artifacts.modelfiles import ADAPTER, CONFIG, TOKENIZER, WEIGHTS
from envtune.stages.fetching import pause
from envtune.supervise.progress import Transferred, amount, span

WHOLE = (CONFIG, WEIGHTS, TOKENIZER)
SMALL = ["chat_template.jinja", "config.json", "tokenizer.json", "tokenizer.model"]
INDEX = "model.safetensors.index.json"
SHARDS = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
BINARIES = ["pytorch_model-1-of-1.bin", "pytorch_model.bin.index.json"]
OTHERS = [
    "README.md", "model.Q4_K_M.gguf", "onnx/model.onnx", "original/consolidated.00.pth",
    "consolidated.safetensors", "model.fp16.safetensors", "tf_model.h5", "training_args.bin",
    "figures/loss.json",
]  # fmt: skip


# fmt: off
CASES = [
    pytest.param([*SMALL, "model.safetensors", *BINARIES], WHOLE, [*SMALL, "model.safetensors"], id="one file"),
    pytest.param([*SMALL, *SHARDS, INDEX, *BINARIES], WHOLE, [*SMALL, *SHARDS, INDEX], id="shards"),
    pytest.param([*SMALL, "pytorch_model.bin"], WHOLE, [*SMALL, "pytorch_model.bin"], id="pickles alone"),
    pytest.param([*SMALL, "weights.safetensors"], WHOLE, [*SMALL, "weights.safetensors", "model.fp16.safetensors", "consolidated.safetensors"], id="no usual name"),
    pytest.param([*SMALL, "model.safetensors"], (TOKENIZER,), SMALL, id="a tokenizer"),
    pytest.param(["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"], (ADAPTER,), ["adapter_config.json", "adapter_model.safetensors"], id="an adapter"),
    pytest.param(["config.json", "additional_chat_templates/tools.jinja", "tokenizer.model.v3", "vocab.json", "merges.txt"], (CONFIG, TOKENIZER), ["config.json", "additional_chat_templates/tools.jinja", "tokenizer.model.v3", "vocab.json", "merges.txt"], id="odd tokenizers"),
]
# fmt: on


@pytest.mark.parametrize(("names", "parts", "wanted"), CASES)
def test_only_what_training_reads_is_fetched(
    names: list[str], parts: tuple[str, ...], wanted: list[str]
) -> None:
    assert selection.files([*names, *OTHERS], parts, SHARDS, code=False) == sorted(wanted)


def test_the_repositorys_own_code_comes_where_it_is_run() -> None:
    names = ["config.json", "modeling_x.py", "layers/attention.py"]
    assert selection.files(names, (CONFIG,), (), code=False) == ["config.json"]
    assert selection.files(names, (CONFIG,), (), code=True) == sorted(names)


def test_the_pauses_double_up_to_a_minute_and_heed_the_hub() -> None:
    assert [pause(n, 1.0, 0.0) for n in (0, 1, 2, 5, 6, 99)] == [1, 2, 4, 32, 60, 60]
    assert [pause(2, share, 0.0) for share in (0.0, 0.5)] == [2, 3]
    assert pause(1, 0.0, 30.0) == 31


def test_a_log_shows_bytes_their_rate_and_the_time_that_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    shown = Transferred("fetch", lambda: now)
    with caplog.at_level(logging.INFO, "envtune"):
        for second in range(12):
            now = float(second)
            shown.line(f"fetch: acme/tiny: {second * 50_000_000} of 3000000000")
    assert caplog.messages == [
        "fetch: acme/tiny: 0 B of 3.0 GB",
        "fetch: acme/tiny: 300.0 MB of 3.0 GB, 50.0 MB/s, 0:54 left",
    ]


def test_a_terminal_shows_bytes_in_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Transferred("fetch")
    shown.terminal = True
    shown.line("fetch: acme/tiny: 750000000 of 3000000000")
    shown.close()
    assert "750M/3.00G" in capsys.readouterr().err


def test_amounts_and_spans_are_read_at_a_glance() -> None:
    assert [amount(n) for n in (0, 999, 1000, 15_300_000_000, 2_000_000_000_000)] == [
        "0 B", "999 B", "1.0 kB", "15.3 GB", "2000.0 GB",
    ]  # fmt: skip
    assert [span(n) for n in (5, 65, 7265)] == ["0:05", "1:05", "2:01:05"]
