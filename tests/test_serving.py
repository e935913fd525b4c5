"""One command trains, proves, serves and answers; then it is stopped, and started again."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from envtune.settings import upstream
from tests.harness import (
    ROOT,
    Entrypoint,
    Result,
    clean_environ,
    envtune,
    execute,
    free_port,
    read,
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv-serve" / "bin" / "python").exists(),
    reason="there is no serve environment; `make setup-serve` makes it",
)
KEY = "planted-5e1f0c77aa"
SENTENCE = [{"role": "user", "content": "What is 3 plus 4?"}]


class Served:
    """A run that is being served, and what is needed to ask it."""

    def __init__(self, entrypoint: Entrypoint, port: int, environ: dict[str, str]) -> None:
        self.entrypoint, self.port, self.environ = entrypoint, port, environ
        self.start = entrypoint.start(**environ)
        self.start.until_said("answers at")
        self.run = self.start.only_run()

    def client(self, key: str = KEY) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=120, trust_env=False
        )

    def chat(self, model: str) -> str:
        question = {"model": model, "messages": SENTENCE, "max_tokens": 24, "temperature": 0}
        with self.client() as client:
            answer = client.post("/v1/chat/completions", json=question)
        assert answer.status_code == 200, answer.text
        said: str = answer.json()["choices"][0]["message"]["content"]
        return said

    def verb(self, name: str, **more: str) -> Result:
        environ = clean_environ(**{**self.environ, **more})
        return envtune(name, cwd=self.entrypoint.folder, environ=environ)


@pytest.fixture(scope="module")
def serving(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], forking: dict[str, str]
) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("serving"), free_port()
    more = {
        "SFT_SERVE": "true", "SFT_PARITY": "require", "SFT_SERVE_PORT": str(port),
        "VLLM_API_KEY": KEY, "TERMINATION_LOG_FILE": str(folder / "termination"),
    }  # fmt: skip
    found = Served(Entrypoint(folder, settings | forking), port, more)
    yield found
    if found.start.process.poll() is None:
        found.start.signal()
        found.start.wait()


def test_what_is_served_was_proved_first(serving: Served) -> None:
    stages = read(serving.run / "run.json")["stages"]
    assert (stages["parity"]["prompts"], stages["parity"]["equal"]) == (7, True)
    assert stages["parity"]["largest_difference"] < 1e-3
    assert stages["parity"]["base_mean_difference"] > 0.1, "the prompts tell nothing"
    [proof] = [c for c in read(serving.run / ".complete")["checks"] if "answers as trained" in c]
    print(proof)


def test_the_base_and_the_tuned_model_can_both_be_asked(serving: Served) -> None:
    base, tuned = serving.chat("tiny-llama"), serving.chat(serving.run.name)
    assert tuned.endswith("."), "it was trained to say a sentence and to stop"
    assert base != tuned


def test_the_smoke_test_asks_what_a_client_would(serving: Served) -> None:
    good = serving.verb("smoke-test")
    assert good.code == 0, good.err
    assert "smoke-test: 5 of 5 passed" in good.err
    bad = serving.verb("smoke-test", VLLM_API_KEY="another-5e1f0c77aa")
    assert bad.code == 6
    assert "models: 401" in bad.err


def test_the_key_is_written_nowhere(serving: Served) -> None:
    for path in serving.entrypoint.folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    for command in serving.start.commands().values():
        assert KEY.encode() not in command


def test_a_second_server_on_the_port_is_refused_before_vllm_starts(serving: Served) -> None:
    refused = serving.verb("serve")
    assert refused.code == 1
    assert f"SFT_SERVE_PORT: {serving.port} of 127.0.0.1 is in use" in refused.err
    assert "starting vLLM" not in refused.err


def test_adapters_that_do_not_fit_are_told_before_vllm_starts(
    serving: Served, tmp_path: Path
) -> None:
    good = serving.run / "serving" / "adapter"
    cut = tmp_path / "cut"
    shutil.copytree(good, cut)
    os.truncate(cut / "adapter_model.safetensors", 5000)
    told = serving.verb(
        "serve", SFT_SERVE_PORT=str(free_port()),
        SFT_SERVE_LORA_MODULES=f"cut={cut},gone=/nowhere,tiny-llama={good},fine={good}",
    )  # fmt: skip
    assert told.code == 6
    assert "starting vLLM" not in told.err
    lines = [line.split("SFT_SERVE_LORA_MODULES: ")[1] for line in told.err.splitlines()]
    assert [line.split()[0] for line in lines] == ["cut:", "gone:", f"'tiny-llama={good}'"]


def test_sigterm_lets_an_answer_end(serving: Served) -> None:
    """Last of this server's: the stop comes in the middle of an answer."""
    question = {
        "model": "tiny-llama", "prompt": "a", "max_tokens": 150, "ignore_eos": True, "stream": True,
    }  # fmt: skip
    ends = []
    with serving.client() as client, client.stream("POST", "/v1/completions", json=question) as got:
        for line in got.iter_lines():
            if line.startswith("data: {"):
                ends += [c["finish_reason"] for c in json.loads(line[len("data: ") :])["choices"]]
                if len(ends) == 1:
                    serving.start.signal()
    assert ends[-1] == "length", "the answer was cut off"
    assert serving.start.wait().code == 0
    folder = serving.entrypoint.folder
    assert (folder / "termination").read_text() == "serve: vLLM drained and ended"
    assert not serving.start.left_over()


def test_a_restart_trains_nothing_and_can_be_stopped_while_vllm_starts(serving: Served) -> None:
    """vLLM swallows the first SIGTERM of those that come while it starts."""
    log = Path(read(serving.run / "run.json")["logs"]) / "serve" / "run.log"
    size = log.stat().st_size
    again = serving.entrypoint.start(**serving.environ)
    again.until(lambda: log.stat().st_size > size)
    again.signal()
    result = again.wait()
    assert result.code in (143, 0)
    assert "train:" not in result.err
    assert not again.left_over()


def test_an_adapter_that_answers_otherwise_is_not_complete(serving: Served) -> None:
    """The served adapter is damaged so that every check of files passes."""
    path = serving.run / "serving" / "adapter" / "adapter_model.safetensors"
    kept = path.with_name("kept")
    shutil.copy(path, kept)
    tensors: dict[str, Any] = load_file(kept)
    path.unlink()  # its bytes are the trained adapter's too
    save_file({k: v * 1.05 if "lora_B" in k else v for k, v in tensors.items()}, path)
    wrong = serving.verb("parity")
    assert wrong.code == 6
    assert "vLLM does not answer as trained: answer " in wrong.err
    assert not (serving.run / ".complete").exists()


def test_the_flags_are_those_of_the_installed_vllm(tmp_path: Path) -> None:
    python = str(ROOT / ".venv-serve" / "bin" / "python")
    shown = execute(
        [python, "-m", "envtune.engine.snapshots.vllm_flags", "--show"], tmp_path, clean_environ()
    )
    assert json.loads(shown.out) == upstream.vllm(), "`make generate` writes them"
