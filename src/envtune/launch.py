"""RunConfig -> LaunchPlan: the command, environment and folder of a child. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envtune import control, sources
from envtune.config import RunConfig

_WITHOUT_KEY = ("offline", "dryrun", "disabled")
# Would make Axolotl's training skip the computation of steps.
_NEVER = ("AXOLOTL_IS_PREPROCESS",)


@dataclass(frozen=True)
class LaunchPlan:
    """What `process` needs to start a child. No secret is ever in `argv`."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True)
class Place:
    """Where a child runs: its run folder, its Python, the machine's cores.

    `supervisor` is this process's stamp; `home` replaces a HOME that cannot be written.
    """

    run_dir: Path
    python: str
    cores: int
    supervisor: str
    home: Path | None = None


def train(
    config: RunConfig, place: Place, environ: Mapping[str, str], resume: str | None
) -> LaunchPlan:
    """Axolotl's training through `accelerate launch`, in the run folder."""
    argv = (
        place.python, "-m", "accelerate.commands.launch",
        "--config_file", "config/accelerate.yaml",
        "-m", "axolotl.cli.train", "config/axolotl.yaml",
    )  # fmt: skip
    return LaunchPlan(argv, _environment(config, place, environ, resume), place.run_dir)


def validate(config: RunConfig, place: Place, environ: Mapping[str, str]) -> LaunchPlan:
    """Axolotl's own validation of the YAML in `place`, as training would see it."""
    argv = (place.python, "-m", "envtune.engine.validate")
    return LaunchPlan(argv, _environment(config, place, environ, None), place.run_dir)


def _environment(
    config: RunConfig, place: Place, environ: Mapping[str, str], resume: str | None
) -> dict[str, str]:
    """`environ` as `Inputs.passed_on` gives it; an empty variable counts as not set."""
    env = {name: value for name, value in environ.items() if value and name not in _NEVER}
    if config.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    elif config.processes == 1:
        # One process that sees several GPUs would split its batch over them.
        env["CUDA_VISIBLE_DEVICES"] = env.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if place.home is not None:
        env |= {"HOME": str(place.home), "USER": env.get("USER", "envtune")}
    if "WANDB_API_KEY" not in env and env.get("WANDB_MODE") not in _WITHOUT_KEY:
        env["WANDB_MODE"] = "disabled"  # W&B would prompt, or end the run
    env[control.RUN_DIR] = str(place.run_dir)
    env[control.SUPERVISOR] = place.supervisor
    if resume:
        env[control.RESUME] = resume
    return {**_defaults(config, place, env), **env}


def _defaults(config: RunConfig, place: Place, env: Mapping[str, str]) -> dict[str, str]:
    defaults = {
        "AXOLOTL_DO_NOT_TRACK": "1",
        "AXOLOTL_TEE_STDOUT": "0",
        "OMP_NUM_THREADS": str(max(1, place.cores // config.processes)),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if "AXOLOTL_DATASET_PROCESSES" not in env:  # its old name, which it reads second
        # Axolotl counts the host's cores, not the container's.
        defaults["AXOLOTL_DATASET_NUM_PROC"] = str(place.cores)
    if config.offline:
        # Nothing to fetch; bitsandbytes would still ask the Hub for a kernel at import.
        defaults["HF_HUB_OFFLINE"] = "1"
    if token := next((env[name] for name in sources.HUB_TOKENS if name in env), None):
        defaults["HF_TOKEN"] = token
    return defaults
