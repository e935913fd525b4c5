"""RunConfig -> LaunchPlan: the command, environment and folder of a child. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from envtune import channel, redaction
from envtune.machine.rendezvous import FLAGS, VARIABLES, Rendezvous
from envtune.resolve import accelerate_flags
from envtune.resolve.config import RunConfig
from envtune.settings import paths
from envtune.settings.own.training import SAVE_MINUTES

_WITHOUT_KEY = ("offline", "dryrun", "disabled")
API_KEY = "VLLM_API_KEY"
# A module of the engine asks nothing of the network, tells nobody of it, and has one thread a
# process for its tokenizer.
_ALONE = {
    "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false", "FASTOKENS_BPE_THREADS": "1",
}  # fmt: skip
# Would make Axolotl's training skip the computation of steps.
_NEVER = ("AXOLOTL_IS_PREPROCESS",)
# What Axolotl's own validation reads of its folder, and writes.
CONFIG, MACHINE, VERDICT = "axolotl.yaml", "machine.json", "verdict.json"
TRAINER = "envtune.engine.train"
# Has it import at once and wait; and what may still change meanwhile, since no import reads it.
WAIT, LATE = "--wait", (channel.RESUME, "WANDB_", "MLFLOW_")
# What `accelerate launch` tells a process that trains alone, by templates/accelerate/single.yaml.
_LAUNCHED = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "False",
}
# What a stage asks of the engine, and the module that does it.
ENGINE = {
    "allreduce": "envtune.engine.allreduce",
    "answers": "envtune.engine.evaluate.answers",
    "chat": "envtune.engine.chat",
    "evaluate": "envtune.engine.evaluate.evaluate",
    "export": "envtune.engine.export.export",
    "merge": "envtune.engine.export.merge",
    "prepare": "envtune.engine.data.prepare",
    "quantise": "envtune.engine.quantise.quantise",
    "render": "envtune.engine.rendering",
}


@dataclass(frozen=True)
class LaunchPlan:
    """What `process` needs to start a child. No secret is ever in `argv`."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True)
class Place:
    """Where a child runs: its run folder, its Python, this node's cores and visible GPUs.

    `supervisor` is this process's stamp, `owner` that of node 0's, which judges the outcome.
    `home` replaces a HOME that cannot be written, `cuda` is where a compiler for GPUs lies.
    """

    run_dir: Path
    python: str
    cores: int
    supervisor: str
    owner: str
    gpus: int = 0
    where: Rendezvous = field(default_factory=Rendezvous)
    home: Path | None = None
    cuda: Path | None = None


def train(
    config: RunConfig, place: Place, environ: Mapping[str, str], resume: str | None
) -> LaunchPlan:
    """Axolotl's training, in the run folder: through `accelerate launch` where several processes
    train or the user speaks to it; else at once, as the launcher would, which imports torch to
    start a second process that does."""
    env, trainer = (
        _environment(config, place, environ, resume),
        ("-m", TRAINER, "config/axolotl.yaml"),
    )
    flags = accelerate_flags.argv(config.setting(FLAGS) or {})
    if config.parallel.world == 1 and not config.parallel.base and not flags:
        cpu = str(config.device == "cpu")
        return LaunchPlan(
            (place.python, *trainer), {**env, **_LAUNCHED, "ACCELERATE_USE_CPU": cpu}, place.run_dir
        )
    argv = (
        place.python, "-m", "accelerate.commands.launch",
        "--config_file", "config/accelerate.yaml",
        *_meeting(config, place.where), *flags, *trainer,
    )  # fmt: skip
    return LaunchPlan(argv, env, place.run_dir)


def ahead(plan: LaunchPlan) -> LaunchPlan | None:
    """`plan` with imports that begin at once; None where a launcher starts what imports."""
    if plan.argv[1:3] != ("-m", TRAINER):
        return None
    return replace(plan, argv=(*plan.argv[:3], WAIT, *plan.argv[3:]))


def since(begun: LaunchPlan, plan: LaunchPlan) -> Mapping[str, str] | None:
    """What `plan` has in its environment that was not known when `begun` was; None where that
    makes another child."""
    changed = {n for n in {*begun.env, *plan.env} if begun.env.get(n) != plan.env.get(n)}
    late = changed <= plan.env.keys() and all(name.startswith(LATE) for name in changed)
    same = ahead(plan) == replace(begun, env=plan.env)
    return {n: plan.env[n] for n in changed} if late and same else None


def validate(config: RunConfig, place: Place, environ: Mapping[str, str]) -> LaunchPlan:
    """Axolotl's own validation of the YAML in `place`, as training would see it."""
    argv = (place.python, "-m", "envtune.engine.validate")
    return LaunchPlan(argv, _environment(config, place, environ, None), place.run_dir)


def sandbox(folder: Path, python: str, path: str) -> LaunchPlan:
    """The child that lays out a user's template. It is told nothing of the environment but where
    modules are."""
    argv = (python, "-P", "-m", "envtune.render.sandbox")
    return LaunchPlan(argv, {"PYTHONPATH": path, "PYTHONUTF8": "1"}, folder)


def engine(
    module: str, order: Path, python: str, run_dir: Path, environ: Mapping[str, str]
) -> LaunchPlan:
    """A module of the engine that does what its order says. It is told no secret, and has no
    network unless `environ` says so."""
    env = {n: v for n, v in environ.items() if v and not isinstance(v, redaction.Secret)}
    argv = (python, "-m", ENGINE[module], str(order))
    return LaunchPlan(argv, {**_ALONE, **env, "PYTHONUNBUFFERED": "1"}, run_dir)


def stacks(pid: int, python: str, run_dir: Path) -> LaunchPlan:
    """py-spy, which writes where the threads of a process and of its children are. It does not
    pause them: they hang, or are stopped, and then nobody could let them go on."""
    tool = str(Path(python).parent / "py-spy")
    flags = ("--nonblocking", "--full-filenames", "--subprocesses")
    return LaunchPlan((tool, "dump", *flags, "--pid", str(pid)), {}, run_dir)


def measuring(config: RunConfig, environ: Mapping[str, str], *, online: bool) -> dict[str, str]:
    """The environment of an engine that loads model and data as training did.

    `online`: it fetches what nobody has fetched before, and may show the Hub's token.
    """
    env = {
        **environ,
        "AXOLOTL_DO_NOT_TRACK": "1",
        "AXOLOTL_TEE_STDOUT": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": (environ.get("HF_HUB_OFFLINE") or "0") if online else "1",
        **paths.caches(config.setting("SFT_CACHE_DIR"), environ),
    }
    if config.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = "-1"  # an empty one counts as not set
    token = next((environ[name] for name in redaction.HUB_TOKENS if environ.get(name)), None)
    if online and token:
        # A plain text passes where secrets are held back.
        env["HF_TOKEN"] = token.reveal() if isinstance(token, redaction.Secret) else token
    return env


def serve(
    config_file: Path, python: Path, run_dir: Path, environ: Mapping[str, str], cuda: Path | None
) -> LaunchPlan:
    """vLLM's server. Of the secrets it is told the one that its clients have to know.

    `cuda`: the folder of the compiler in its environment, with which FlashInfer makes kernels.
    """
    env = {n: v for n, v in environ.items() if v and not isinstance(v, redaction.Secret)}
    env.pop(API_KEY, None)
    if (key := environ.get(API_KEY, "")).strip():
        env[API_KEY] = key
    if not env.get("VLLM_PORT", "0").isdigit():
        del env["VLLM_PORT"]  # Kubernetes' link to a service that is called vllm
    if cuda is not None:
        path = f"{python.parent}:{env.get('PATH', '/usr/bin:/bin')}"  # where its ninja is
        env = {"CUDA_HOME": str(cuda), **env, "PATH": path}
    argv = (
        str(python), "-P", "-m", "vllm.entrypoints.cli.main", "serve", "--config", str(config_file),
    )  # fmt: skip
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return LaunchPlan(
        argv, {**quiet, **env, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}, run_dir
    )


def guarded(plan: LaunchPlan, middleware: Sequence[str]) -> LaunchPlan:
    """A server with what stands before its routes, the outermost last. It is on the command line:
    of a list in the file vLLM 0.32 takes the first alone."""
    flags = (part for name in middleware for part in ("--middleware", name))
    return replace(plan, argv=(*plan.argv, *flags))


def importing(plan: LaunchPlan, middleware: Sequence[str]) -> LaunchPlan:
    """Whether a server's Python can import what is to stand before its routes, where it finds
    modules as the server will."""
    return replace(plan, argv=(plan.argv[0], "-P", "-m", "envtune.serve.guard", *middleware))


def push(order: Path, python: str, run_dir: Path, environ: Mapping[str, str]) -> LaunchPlan:
    """The upload of a result. It is told the secrets: its order names none."""
    env = {name: value for name, value in environ.items() if value}
    argv = (python, "-m", "envtune.transfer.upload", str(order))
    return LaunchPlan(argv, {**env, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}, run_dir)


def fetch(
    order: Path, python: str, run_dir: Path, environ: Mapping[str, str], home: Path | None
) -> LaunchPlan:
    """One try to fetch models. Of the secrets it is told the Hub's token."""
    env = {
        name: value
        for name, value in environ.items()
        if value and (name in redaction.HUB_TOKENS or not isinstance(value, redaction.Secret))
    }
    if home is not None:
        env["HOME"] = str(home)
    argv = (python, "-m", "envtune.transfer.fetch_attempt", str(order))
    return LaunchPlan(argv, {**env, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}, run_dir)


def _meeting(config: RunConfig, where: Rendezvous) -> tuple[str, ...]:
    """Where the ranks meet. One node alone takes a free port, so that two runs fit on it."""
    if config.parallel.world == 1:
        return ()
    if config.parallel.nodes == 1:
        return ("--main_process_port", str(where.port or 0))
    host, port = where.meeting
    return (
        "--machine_rank", str(where.rank),
        "--main_process_ip", host,
        "--main_process_port", str(port),
        "--rdzv_conf", f"timeout={config.setting('SFT_RENDEZVOUS_SECONDS')}",
    )  # fmt: skip


def _environment(
    config: RunConfig, place: Place, environ: Mapping[str, str], resume: str | None
) -> dict[str, str]:
    """`environ` as `Inputs.passed_on` gives it; an empty variable counts as not set."""
    env = {name: value for name, value in environ.items() if value and not _dropped(name)}
    env |= _devices(config, place, env)
    if place.home is not None:
        env |= {"HOME": str(place.home), "USER": env.get("USER", "envtune")}
    if "WANDB_API_KEY" not in env and env.get("WANDB_MODE") not in _WITHOUT_KEY:
        env["WANDB_MODE"] = "disabled"  # W&B would prompt, or end the run
    if env.get("WANDB_MODE") in _WITHOUT_KEY:
        env.setdefault("WANDB_ERROR_REPORTING", "false")  # it calls home all the same
    env[channel.RUN_DIR] = str(place.run_dir)
    env[channel.SUPERVISOR] = place.supervisor
    env[channel.OWNER] = place.owner
    if resume:
        env[channel.RESUME] = resume
    if config.setting("SFT_RESUME_FORCE"):
        env[channel.RESUME_FORCE] = "1"
    if minutes := config.setting(SAVE_MINUTES):
        env[channel.SAVE_SECONDS] = str(minutes * 60)
    if layout := config.setting("SFT_CHAT_LAYOUT"):
        env[channel.LAYOUT] = layout
    return {**_defaults(config, place, env), **env}


def _dropped(name: str) -> bool:
    """torchrun takes PET_* for its own flags, and a rank's variables make a rank."""
    return name in _NEVER or name in VARIABLES or name.startswith("PET_")


def _devices(config: RunConfig, place: Place, env: Mapping[str, str]) -> dict[str, str]:
    """What the ranks see. Fewer ranks than GPUs see the first of those that the user chose:
    one process that sees several would split its batch over them."""
    local = config.parallel.local
    if config.device == "cpu":
        hidden = {"CUDA_VISIBLE_DEVICES": ""}
        return hidden if config.parallel.world == 1 else {**hidden, "ACCELERATE_USE_CPU": "true"}
    if local >= place.gpus:
        return {}
    chosen = env.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(place.gpus)))
    return {"CUDA_VISIBLE_DEVICES": ",".join(chosen.split(",")[:local])}


def _defaults(config: RunConfig, place: Place, env: Mapping[str, str]) -> dict[str, str]:
    defaults = {
        "AXOLOTL_DO_NOT_TRACK": "1",
        "AXOLOTL_TEE_STDOUT": "0",
        "OMP_NUM_THREADS": str(max(1, place.cores // config.parallel.local)),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # MLflow's own patience is minutes for each metric that a dead server does not take.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        **paths.caches(config.setting("SFT_CACHE_DIR"), env),
    }
    if "AXOLOTL_DATASET_PROCESSES" not in env:  # its old name, which it reads second
        # Axolotl counts the host's cores, not the container's.
        defaults["AXOLOTL_DATASET_NUM_PROC"] = str(place.cores)
    if config.device == "cpu" and config.parallel.world > 1 and place.where.on_loopback:
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # a host's name may lead nowhere
    if config.device == "cuda" and "PYTORCH_CUDA_ALLOC_CONF" not in env:  # its old name
        # Else blocks that are split are reserved and useless; `axolotl train` alone sets it.
        defaults["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    if config.device == "cuda" and config.parallel.world > 1:
        # What went wrong between ranks is told, and a rank that waits for a dead one ends.
        defaults |= {"NCCL_DEBUG": "WARN", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
    if config.device == "cuda" and place.cuda is not None:
        defaults["CUDA_HOME"] = str(place.cuda)  # DeepSpeed compiles some of its optimizers
    if config.offline:
        # Nothing to fetch; bitsandbytes would still ask the Hub for a kernel at import.
        defaults["HF_HUB_OFFLINE"] = "1"
    if token := next((env[name] for name in redaction.HUB_TOKENS if name in env), None):
        defaults["HF_TOKEN"] = token
    return defaults
