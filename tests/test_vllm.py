"""A real vLLM serves what export and merge made: the same tokens as transformers and PEFT."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

from envtune.engine.export.export import export
from envtune.engine.export.merge import merge
from tests.harness import ROOT, clean_environ, envtune, free_port, read
from tests.test_export import Kind, bases, kind_of, order, trained  # noqa: F401

VLLM = ROOT / ".venv-serve" / "bin" / "vllm"
pytestmark = pytest.mark.skipif(
    not VLLM.exists(), reason="there is no serve environment; `make setup-serve` makes it"
)
PROMPTS, TOKENS = 7, 48
# Of the logarithm of the chosen token's probability, in float32.
CLOSE = 1e-3

ON_ONE_BASE = [
    kind_of("plain"),
    kind_of("patterns"),
    kind_of("lora-of-the-embedding"),
    kind_of("single"),
    kind_of("single-both"),
    kind_of("single-many"),
]


@contextmanager
def serving(
    model: Path, adapters: Mapping[str, Path], rank: int, log: Path, dtype: str = "float32"
) -> Iterator[str]:
    """vLLM on loopback; gives its address. One more slot than adapters: in 0.32
    a request for the base is answered by the adapter in the last one on a CPU."""
    url = f"http://127.0.0.1:{free_port()}"
    lora = [
        "--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(len(adapters) + 1),
        "--lora-modules", *(f"{name}={path}" for name, path in adapters.items()),
    ] if adapters else []  # fmt: skip
    process = subprocess.Popen(
        [str(VLLM), "serve", str(model), "--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1],
         "--served-model-name", "base", "--dtype", dtype, "--enforce-eager",
         "--gpu-memory-utilization", "0.3", *lora],
        env=clean_environ(VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1"),
        stdout=log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        _wait(url, process, log)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("vLLM does not start: " + log.read_text()[-3000:])


def completed(url: str, model: str, prompt: list[int]) -> tuple[list[int], list[float]]:
    """The tokens that a server chooses, greedily, and the logarithms of their probabilities."""
    question = {
        "model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0,
        "ignore_eos": True, "return_token_ids": True, "logprobs": 0,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        [choice] = json.load(answer)["choices"]
    return choice["token_ids"], choice["logprobs"]["token_logprobs"]


def generated(model: Any, prompt: list[int]) -> tuple[list[int], list[float]]:
    """The same of transformers."""
    with torch.no_grad():
        made = model.generate(
            inputs=torch.tensor([prompt]), max_new_tokens=TOKENS,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    tokens = made.sequences[0, len(prompt) :].tolist()
    logits = torch.stack(made.logits)[:, 0].log_softmax(-1)
    return tokens, logits.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()


def assert_same(url: str, name: str, model: Any, size: int, dice: random.Random) -> None:
    worst = 0.0
    for _ in range(PROMPTS):
        prompt = [dice.randrange(5, size) for _ in range(dice.randint(4, 20))]
        (served, theirs), (expected, ours) = completed(url, name, prompt), generated(model, prompt)
        assert served == expected, f"{name}: {prompt}"
        worst = max(worst, *(abs(a - b) for a, b in zip(theirs, ours, strict=True)))
    print(f"{name}: {PROMPTS} x {TOKENS} tokens equal, largest difference of a logprob {worst:.1e}")
    assert worst < CLOSE


def loaded(base: Path) -> Any:
    """A model that answers greedily, also past an end of text, as the server is asked to."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return model.eval()


def tuned(base: Path, adapter: Path, size: int | None = None) -> Any:
    model = loaded(base)
    if size is not None:
        model.resize_token_embeddings(size, mean_resizing=False)
    return PeftModel.from_pretrained(model, adapter).eval()


def test_adapters_on_one_base_answer_as_they_were_trained(
    bases: Path, trained: Any, tmp_path: Path, dice: random.Random  # noqa: F811
) -> None:  # fmt: skip
    base = bases / "untied"
    adapters, rank = {}, 1
    for kind in ON_ONE_BASE:
        export(order(trained(kind)[0], base, tmp_path / kind.name))
        told = read(tmp_path / kind.name / "serving.json")
        adapters[kind.name] = tmp_path / kind.name / told["adapter"]
        rank = max(rank, told["max_lora_rank"])
    with serving(base, adapters, rank, tmp_path / "log") as url:
        for kind in ON_ONE_BASE:
            assert_same(url, kind.name, tuned(base, trained(kind)[0]), 512, dice)
        assert_same(url, "base", loaded(base), 512, dice)


def test_added_tokens_are_served_on_a_base_with_their_rows(
    bases: Path, trained: Any, tmp_path: Path, dice: random.Random  # noqa: F811
) -> None:  # fmt: skip
    kind, base = kind_of("added-tokens"), bases / "untied"
    export(order(trained(kind)[0], base, tmp_path / "serving"))
    told = read(tmp_path / "serving" / "serving.json")
    adapters = {"tuned": tmp_path / "serving" / told["adapter"]}
    model = tmp_path / "serving" / told["model"]
    size = read(model / "config.json")["vocab_size"]
    with serving(model, adapters, told["max_lora_rank"], tmp_path / "log") as url:
        assert_same(url, "tuned", tuned(base, trained(kind)[0], size), size, dice)


def test_a_merged_model_answers_as_it_was_trained(
    bases: Path, trained: Any, tmp_path: Path, dice: random.Random  # noqa: F811
) -> None:  # fmt: skip
    """Of what no server takes as an adapter, both at once."""
    more = {"use_dora": True, "modules_to_save": ["embed_tokens", "lm_head"]}
    base, adapter = bases / "untied", trained(Kind("dora-and-modules", "merged", more))[0]
    merge(base, adapter, tmp_path / "merged")
    with serving(tmp_path / "merged", {}, 1, tmp_path / "log") as url:
        assert_same(url, "base", tuned(base, adapter), 512, dice)


WHOLE = [
    ("full", {}, True),
    ("lora", {"SFT_MERGE": "true", "SFT_SERVE_DTYPE": "bfloat16"}, None),
]


@pytest.mark.parametrize(("name", "more", "equal"), WHOLE)
def test_a_run_that_is_served_whole_is_proved(
    name: str,
    more: dict[str, str],
    equal: bool | None,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """A full fine-tuning, token for token; and a plain adapter that was merged because it was
    asked for, in bfloat16, where they are only nearly as probable."""
    run = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(name), run)
    environ = clean_environ(SFT_PARITY="require", **more)
    if more:
        assert envtune("export", str(run), cwd=tmp_path, environ=environ).code == 0
        assert (run / "merged" / "model.safetensors").exists()
    done = envtune("parity", str(run), cwd=tmp_path, environ=environ)
    assert done.code == 0, done.err
    print(name, read(run / ".complete")["checks"][-1])
    assert read(run / "run.json")["stages"]["parity"]["equal"] is equal
    assert ("7 x 48 tokens nearly as probable" in done.err) is (equal is None)
