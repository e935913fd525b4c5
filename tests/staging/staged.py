"""A plugin of Axolotl's that has something go wrong at a certain step of a real training.

STAGED names the function and STAGED_STEP the step, from 1; 0 is the loading of the model. On
STAGED_RANK alone, where it is set. Only the first start of a folder is disturbed.
"""

import ctypes
import io
import os
import socket
import time
import warnings
from pathlib import Path

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback


class Plugin(BasePlugin):
    def pre_model_load(self, cfg):
        _at(0)

    def add_callbacks_post_trainer(self, cfg, trainer):
        return [Callback()]


class Callback(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        _at(state.global_step + 1)


def _at(step):
    rank = os.environ.get("RANK", "0")
    if step == int(os.environ["STAGED_STEP"]) and rank == os.environ.get("STAGED_RANK", rank):
        once = Path(f".staged-{rank}")
        if not once.exists():
            once.touch()
            globals()[os.environ["STAGED"]]()


def hang():
    waits_for_nobody()


def waits_for_nobody():
    while True:
        time.sleep(1)


def set_clock_back():
    """As if somebody had set it: all that this process asks from now on."""
    now = time.time
    time.time = lambda: now() - 7200.0


def stop():
    os.kill(os.getpid(), 19)


# What the libraries themselves raise.


def host_memory():
    bytearray(1 << 60)


def torch_memory():
    torch.empty(1 << 55)


def label_out_of_bounds():
    torch.nn.functional.cross_entropy(torch.zeros(1, 4), torch.tensor([9]))


def id_out_of_range():
    torch.nn.Embedding(4, 2)(torch.tensor([9]))


def size_mismatch():
    torch.nn.Linear(2, 2).load_state_dict(torch.nn.Linear(3, 2).state_dict())


def dtype_mismatch():
    torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.bfloat16)


def no_grad():
    torch.ones(1).backward()


def pickled_weights():
    held = io.BytesIO()
    torch.save(Path("code"), held)
    held.seek(0)
    torch.load(held)


def cut_archive():
    held = io.BytesIO()
    torch.save(torch.zeros(100), held)
    torch.load(io.BytesIO(held.getvalue()[:-50]))


def cut_safetensors():
    import safetensors.torch

    Path(".cut.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    safetensors.torch.load_file(".cut.safetensors")


def full_device():
    torch.save(torch.zeros(1 << 20), "/dev/full")


def full_file():
    with open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"x")


def port_taken():
    from torch.distributed import TCPStore

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        TCPStore("127.0.0.1", held.getsockname()[1], 1, is_master=True)


def node_missing():
    from datetime import timedelta

    from torch.distributed import TCPStore

    TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=timedelta(seconds=1))


def unknown_host():
    socket.getaddrinfo("no-such-host.invalid", 443)


def refused_connection():
    import httpx

    httpx.get("http://127.0.0.1:9")


def old_tokenizer():
    from tokenizers import Tokenizer

    Tokenizer.from_str('{"version": "1.0", "added_tokens": [], "model": {"type": "Newer"}}')


def no_chat_template():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(os.environ["STAGED_MODEL"])
    tokenizer.chat_template = None
    tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])


def no_padding():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(os.environ["STAGED_MODEL"])
    tokenizer.pad_token = None
    tokenizer(["a", "b c"], padding=True)


def roles_alternate():
    from transformers.utils import chat_template_utils

    template = "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}"
    chat_template_utils.render_jinja_template(
        [[{"role": "user", "content": "a"}]], chat_template=template
    )


def no_module():
    import mamba_ssm  # noqa: F401


def no_flash_attention():
    import flash_attn  # noqa: F401


def no_library():
    from transformers import AutoModel

    AutoModel.from_pretrained(os.environ["STAGED_MODEL"], attn_implementation="flash_attention_2")


def unknown_architecture():
    from transformers import AutoConfig

    Path(".unknown").mkdir()
    Path(".unknown/config.json").write_text('{"model_type": "none4"}')
    AutoConfig.from_pretrained(".unknown")


def weights_missing():
    from transformers import AutoModelForCausalLM, LlamaConfig

    LlamaConfig(num_hidden_layers=1).save_pretrained(".weightless")
    AutoModelForCausalLM.from_pretrained(".weightless")


def no_parquet():
    import pyarrow.parquet

    Path(".rows.parquet").write_text("no parquet at all")
    pyarrow.parquet.read_table(".rows.parquet")


def latin():
    b"caf\xe9 au lait".decode()


def bf16_refused():
    from transformers import TrainingArguments

    with warnings.catch_warnings():
        TrainingArguments("out", bf16=True, use_cpu=False, tf32=True)


def killed():
    os.kill(os.getpid(), 9)


def crashed():
    ctypes.string_at(0)


def left():
    os._exit(77)


def our_own_bug():
    _ = 1 // (len(os.environ) - len(os.environ))


# What takes a GPU, a store or a Hub that is not here, in the classes that their libraries raise.


def _hub(kind, status, text):
    import httpx
    from huggingface_hub import errors

    request = httpx.Request("GET", "https://huggingface.co/org/model/resolve/main/config.json")
    raise getattr(errors, kind)(text, response=httpx.Response(status, request=request))


def gated():
    _hub("GatedRepoError", 403, "403 Client Error. Access to model org/model is restricted")


def not_found():
    _hub("RepositoryNotFoundError", 404, "404 Client Error. Repository Not Found for url")


def bad_token():
    _hub("HfHubHTTPError", 401, "401 Client Error: Unauthorized for url. Invalid user token.")


def too_many():
    _hub("HfHubHTTPError", 429, "429 Client Error: Too Many Requests for url")


def hub_down():
    _hub("HfHubHTTPError", 503, "503 Server Error: Service Temporarily Unavailable for url")


def reset():
    raise ConnectionResetError(104, "Connection reset by peer")


def gpu_memory():
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"
    )


def gpu_assert():
    raise torch.AcceleratorError("CUDA error: device-side assert triggered", 710)


def no_kernel():
    raise torch.AcceleratorError(
        "CUDA error: no kernel image is available for execution on the device", 209
    )


def old_driver():
    raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040).")


def ecc():
    raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered", 214)


def cublas():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def nccl():
    raise torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:3699, unhandled system error"
    )


def bus_error():
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
                       "dataloader's workers are out of shared memory.")  # fmt: skip


def worker_killed():
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")


def quota():
    raise OSError(122, "Disk quota exceeded", "/quota/x")


def stale():
    raise OSError(116, "Stale file handle", "/nfs/x")


def read_only():
    raise OSError(30, "Read-only file system", "/ro/x")


def too_many_files():
    raise OSError(24, "Too many open files", "/data/x")


def no_threads():
    raise RuntimeError("can't start new thread")


def tracker_key():
    import wandb.errors

    raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")
