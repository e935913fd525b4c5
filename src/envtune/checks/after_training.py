"""What would end a stage after training, told before any GPU time is spent on it."""

from collections.abc import Iterator

from envtune import venvs
from envtune.checks import lm_eval_tasks, quantisable
from envtune.errors import Exit, Problem
from envtune.machine import ports
from envtune.resolve import data as data_types
from envtune.resolve.config import Facts
from envtune.resolve.facts import read_data
from envtune.serve import access, vllm_config
from envtune.settings import prompts
from envtune.settings.own import SERVE_FLAGS
from envtune.settings.own.stages import EVALUATED
from envtune.settings.typed import Settings

# What vLLM's two queues between its processes take of /dev/shm, with room beside them, in bytes.
_QUEUES = 2**29

_NO_VLLM = (
    "needs vLLM in an environment of its own; `make setup-serve` makes one, or SFT_VLLM_VENV "
    "names its folder"
)
_BUILT_FOR_GPUS = (
    "needs a vLLM that works on a CPU, where this run is; the one here is built for GPUs. The cpu "
    "flavour of the image has one, or SFT_VLLM_VENV names the folder of another"
)


def problems(settings: Settings, facts: Facts) -> list[Problem]:
    """Of the stages that these settings ask for."""
    pretended = settings.get("SFT_PRETEND_GPU")
    return [
        *([] if pretended else (*_vllm(settings, facts.device), *_port(settings))),
        *_access(settings, facts),
        *vllm_config.owned(settings.get(SERVE_FLAGS) or {}),
        *quantisable.problems(settings),
        *_evaluation(settings),
        *prompts.problems(settings),
        *lm_eval_tasks.problems(settings),
        *_shared_memory(settings, facts.device, facts.machine.shm),
    ]


def _vllm(settings: Settings, device: str) -> Iterator[Problem]:
    wanted = {"SFT_SERVE": settings.get("SFT_SERVE")}
    wanted["SFT_PARITY=require"] = settings.get("SFT_PARITY") == "require"
    named = settings.get("SFT_VLLM_VENV")
    there = venvs.find(named, vllm_config.ENVIRONMENT)
    if there and not (device == "cpu" and venvs.wants_gpu(there)):
        return
    if named and not there:
        yield Problem("SFT_VLLM_VENV", f"{named} holds no environment (no bin/python)")
        return
    for name in (name for name, on in wanted.items() if on):
        yield Problem(name, _BUILT_FOR_GPUS if there else _NO_VLLM)


def _shared_memory(settings: Settings, device: str, shm: int | None) -> Iterator[Problem]:
    """What vLLM would miss of /dev/shm on a CPU; one GPU alone does without its queues."""
    asked = [
        name for name in ("SFT_SERVE", "SFT_PARITY") if settings.get(name) not in (False, "off")
    ]
    there = venvs.find(settings.get("SFT_VLLM_VENV"), vllm_config.ENVIRONMENT)
    asked = asked if there and not venvs.wants_gpu(there) else []
    if device == "cpu" and asked and shm is not None and shm < _QUEUES:
        yield Problem(
            asked[0],
            f"vLLM needs {_QUEUES // 2**20} MiB of /dev/shm on a CPU and {shm // 2**20} are there; "
            "start the container with --shm-size=1g, or set SFT_PARITY=off and leave the proof out",
        )


def _access(settings: Settings, facts: Facts) -> Iterator[Problem]:
    if settings.get("SFT_SERVE"):
        flags = settings.get(SERVE_FLAGS) or {}
        yield from access.problems(flags, settings.get, facts.environ)


def _port(settings: Settings) -> Iterator[Problem]:
    if not settings.get("SFT_SERVE"):
        return
    host, port = access.address(settings.get(SERVE_FLAGS) or {})
    if why := ports.in_use(host, port):
        yield Problem("SFT_SERVE_PORT", f"{port} {why}; choose another port")


def _evaluation(settings: Settings) -> Iterator[Problem]:
    """An evaluation that has nothing to measure, or a data file that it cannot read."""
    asked, given = settings.own.get("SFT_EVALUATE"), settings.own.get("SFT_EVAL_DATASET")
    if given and given.value and (problem := read_data([{"path": given.value}])[0].problem):
        yield Problem(given.name, problem, Exit.DATA)
    if given and given.value and "datasets" not in settings.axolotl:
        yield Problem(given.name, "reads like the first of AXOLOTL_DATASETS, which is not set")
    held_back = (*data_types.EVALUATES, "val_set_size", "test_datasets")
    values = [settings.axolotl[key].value for key in held_back if key in settings.axolotl]
    named = [settings.get(name) for name in EVALUATED]
    if asked and asked.value and not any([*values, *named]):
        what = "has nothing to measure; set SFT_EVAL_PROMPTS, or hold rows back for the loss: "
        yield Problem(asked.name, f"{what}AXOLOTL_VAL_SET_SIZE=0.05")
