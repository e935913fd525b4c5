"""What goes wrong in a real training, staged: the right exit code, and a reason on one line that
fits a termination message. 40 and more by DRILL=1, one of each kind else."""

import importlib
import os
from pathlib import Path
from random import Random

import pytest
from huggingface_hub import constants

from envtune.failures.table import recognise
from tests.harness import Entrypoint, Start
from tests.test_hanging import STAGING

DRILL = bool(os.environ.get("DRILL"))
SAMPLE = 1

# What is raised in the trainer before its first step, and at it: the code and a part of the line.
LOADING = {
    "host_memory": (5, "the host's memory was not enough"),
    "torch_memory": (5, "the host's memory was not enough"),
    "gpu_memory": (5, "the GPU's memory was not enough"),
    "cublas": (5, "the GPU's memory was not enough"),
    "worker_killed": (5, "the host's memory was not enough"),
    "size_mismatch": (1, "the weights do not fit"),
    "pickled_weights": (1, "the weights are a pickle"),
    "cut_archive": (4, "a file of weights is damaged"),
    "cut_safetensors": (4, "a file of weights is damaged"),
    "old_tokenizer": (1, "the tokenizer cannot be read"),
    "no_chat_template": (1, "the tokenizer has no chat template"),
    "no_padding": (1, "the tokenizer has no token to pad with"),
    "no_module": (1, "a library is not installed"),
    "no_flash_attention": (1, "flash attention is not installed"),
    "no_library": (1, "flash attention is not installed"),
    "unknown_architecture": (1, "transformers here does not know"),
    "weights_missing": (4, "a file of the model is missing"),
    "no_kernel": (1, "has no code for the GPU"),
    "old_driver": (1, "the GPU's driver is too old"),
    "read_only": (1, "a volume is mounted to be read alone"),
    "too_many_files": (1, "more files are open"),
    "no_threads": (1, "more processes and threads"),
    "port_taken": (1, "the port where the nodes meet is taken"),
    "node_missing": (201, "not every node came"),
    "unknown_host": (201, "the network failed"),
    "refused_connection": (201, "the network failed"),
    "reset": (201, "the network failed"),
    "too_many": (201, "come back later"),
    "hub_down": (201, "the Hub, or a server before it"),
    "gated": (4, "licence is not accepted"),
    "not_found": (4, "no such repository"),
    "bad_token": (4, "the Hub does not know the token"),
    "tracker_key": (4, "W&B refused the key"),
}
STEPPING = {
    "label_out_of_bounds": (3, "outside of the model's vocabulary"),
    "id_out_of_range": (3, "outside of the model's vocabulary"),
    "gpu_assert": (3, "outside of the model's vocabulary"),
    "roles_alternate": (3, "the chat template refuses a conversation"),
    "no_parquet": (3, "the data could not be read"),
    "latin": (3, "not UTF-8"),
    "dtype_mismatch": (1, "weights of different precisions meet"),
    "no_grad": (1, "nothing that is trained takes part"),
    "bus_error": (1, "/dev/shm is too small"),
    "full_device": (200, "the disk is full"),
    "full_file": (200, "the disk is full"),
    "quota": (200, "the quota of the disk"),
    "stale": (200, "the volume does not answer"),
    "nccl": (202, "the link between GPUs or nodes failed"),
    "ecc": (202, "a GPU or the link"),
    "killed": (202, "killed from outside"),
    "crashed": (202, "killed from outside"),
    "left": (202, "killed from outside"),
    "our_own_bug": (203, "ZeroDivisionError"),
}
STAGED = {
    **{name: (0, *told) for name, told in LOADING.items()},
    **{name: (1, *told) for name, told in STEPPING.items()},
}
# What is set wrongly, or is missing, before a trainer starts.
SET: dict[str, tuple[dict[str, str], int, str]] = {
    "model": ({"AXOLOTL_BASE_MODEL": "./nowhere"}, 4, "AXOLOTL_BASE_MODEL"),
    "rows": ({"AXOLOTL_DATASETS__0__PATH": "nowhere.jsonl"}, 3, "AXOLOTL_DATASETS__0__PATH"),
    "typo": ({"AXOLOTL_LEARNING_RTE": "1"}, 1, "AXOLOTL_LEARNING_RATE"),
    "type": ({"AXOLOTL_LORA_R": "many"}, 1, "AXOLOTL_LORA_R"),
    "target": ({"AXOLOTL_LORA_TARGET_MODULES": '["c_attn"]'}, 1, "fits no layer"),
    "hub": ({"AXOLOTL_BASE_MODEL": "org/none", "HF_HUB_OFFLINE": "0"}, 201, "org/none"),
    "offline": ({"AXOLOTL_BASE_MODEL": "org/none"}, 4, "org/none"),
    "diverged": ({"AXOLOTL_LEARNING_RATE": "1e38", "AXOLOTL_MAX_GRAD_NORM": "0"}, 6, "diverged"),
    "workers": ({"AXOLOTL_DATALOADER_NUM_WORKERS": "2000", "AXOLOTL_SEQUENCE_LEN": "1000000",
                 "SFT_DEVICE": "cpu"}, 1, "/dev/shm"),
    "deepspeed": ({"SFT_ACCELERATE_PRESET": "zero2", "SFT_DEVICE": "cpu"}, 1, "SFT_ACCELERATE_PRESET"),
    "hours": ({"SFT_MAX_HOURS": "0.0001"}, 7, "SFT_MAX_HOURS"),
}  # fmt: skip


def _chosen(dice: Random) -> tuple[list[str], list[str]]:
    if DRILL:
        return list(STAGED), list(SET)
    return dice.sample(list(STAGED), SAMPLE), dice.sample(list(SET), 1)


@pytest.mark.parametrize("kind", ["staged", "set"])
def test_what_goes_wrong_has_its_code_and_its_reason_on_one_short_line(
    kind: str, tmp_path: Path, settings: dict[str, str], forking: dict[str, str], dice: Random
) -> None:
    staged, set_ = _chosen(dice)
    wrong = []
    for name in staged if kind == "staged" else set_:
        folder = tmp_path / name
        folder.mkdir()
        more, code, words = _of(kind, name, settings, forking)
        word = folder / "termination"
        start = Entrypoint(folder, {**settings, **forking}).start(
            **more, TERMINATION_LOG_FILE=str(word)
        )
        wrong += [f"{name}: {what}" for what in _looked_at(start, word, code, words)]
    print(f"{len(staged if kind == 'staged' else set_)} staged, {len(wrong)} wrong")
    assert wrong == []


# Told by how the process ended, or by nothing that is known.
SILENT = ("killed", "crashed", "left", "our_own_bug")


def test_what_the_libraries_raise_is_told_by_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.syspath_prepend(str(STAGING))
    monkeypatch.setenv("STAGED_MODEL", settings["AXOLOTL_BASE_MODEL"])
    # By its constant too, which a library that is imported now would keep for every later test.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    staged = importlib.import_module("staged")
    for name, (_, code, words) in STAGED.items():
        if name in SILENT:
            continue
        with pytest.raises(BaseException) as raised:
            getattr(staged, name)()
        kind = raised.type
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        text = f"{module}{kind.__qualname__}: {raised.value}"
        failure = recognise(text)
        assert failure is not None, f"{name}: {text}"
        assert (failure.exit, words in failure.cause) == (code, True), f"{name}: {text}"


def _of(
    kind: str, name: str, settings: dict[str, str], forking: dict[str, str]
) -> tuple[dict[str, str], int, str]:
    if kind == "set":
        return SET[name]
    step, code, words = STAGED[name]
    more = {
        "AXOLOTL_PLUGINS": '["staged.Plugin"]',
        "PYTHONPATH": f"{forking['PYTHONPATH']}{os.pathsep}{STAGING}",
        "STAGED": name, "STAGED_STEP": str(step), "STAGED_MODEL": settings["AXOLOTL_BASE_MODEL"],
    }  # fmt: skip
    return more, code, words


def _looked_at(start: Start, word: Path, code: int, words: str) -> list[str]:
    result, wrong = start.wait(), []
    line = word.read_text() if word.exists() else ""
    print(f"{result.code}: {line[:300]}")
    if result.code != code:
        wrong.append(f"{result.code} and not {code}: {line or result.err[-2000:]}")
    if words not in line:
        wrong.append(f"{words!r} is not in {line!r}")
    if len(line.encode()) > 4096 or (len(line.splitlines()) != 1 and code != 1):
        wrong.append(f"no short line: {line!r}")
    if start.left_over():
        wrong.append("something is left over")
    return wrong
