"""The whole way from the environment to a RunConfig, in one function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envtune.checks import access, preflight, quantisable
from envtune.errors import NothingSet, Problem, Refused
from envtune.machine import certificates, hardware, rendezvous
from envtune.machine.pretended import pretend
from envtune.machine.rendezvous import Rendezvous
from envtune.resolve import accelerate_flags, facts, parallel
from envtune.resolve.config import Facts, RunConfig, Tracking
from envtune.resolve.rules import resolve
from envtune.settings import documents, loading, publish_targets, retired, runtime, sources
from envtune.settings.loading import Settings
from envtune.settings.own.place import CA_BUNDLE, INSECURE
from envtune.settings.sources import USERINFO, Inputs
from envtune.supervise import finish


@dataclass(frozen=True)
class Configuration:
    """A RunConfig and what it was made from."""

    config: RunConfig
    settings: Settings
    inputs: Inputs
    facts: Facts
    outputs: str
    logs: str
    where: Rendezvous


def configure(
    arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Configuration:
    """Reads, types, checks and resolves. Raises Refused with every problem at once."""
    inputs = sources.with_documents(sources.read(arguments, environ))
    loaded = loading.load(inputs)
    given = meant(loaded)
    wrong_names = [*retired.problems(loaded), *publish_targets.problems(loaded)]
    if problems := [*wrong_names, *preflight.before_facts(given)]:
        raise (Refused if given.axolotl else NothingSet)(problems)
    where, wrong = rendezvous.read(inputs.environ, accelerate_flags.given(given))
    seen = _facts(given, inputs.environ)
    if not wrong:
        layout, wrong = _layout(given, seen, where)
        seen = replace(seen, parallel=layout)
    outputs, logs = facts.folders(given.get, inputs.environ)
    written = {_outputs_name(given): outputs, "SFT_LOGS_DIR": logs}
    if named := given.axolotl.get("output_dir"):
        written[named.name] = str(named.value)
    here = [*finish.problems(given, inputs.environ), *_untrusted(given)]
    local = access.local_problems(given)
    if problems := [*wrong, *preflight.preflight(given, seen, written), *here, *local]:
        raise Refused(problems)
    caches = runtime.caches(given.get("SFT_CACHE_DIR"), inputs.environ)
    seen, told = access.verify(given, seen, {**inputs.environ, **caches})
    if problems := [*quantisable.model_problems(given, seen)]:
        raise Refused(problems)
    config = resolve(given, seen)
    told = [*preflight.warnings(given, seen), *finish.warnings(given, inputs.environ), *told]
    config = replace(config, warnings=(*config.warnings, *told))
    return Configuration(config, given, inputs, seen, outputs, logs, where)


def meant(loaded: Settings) -> Settings:
    """Settings under today's names, with absolute paths: what every stage goes by."""
    return facts.located(publish_targets.translated(retired.translated(loaded)))


def _untrusted(given: Settings) -> list[Problem]:
    return [*certificates.problems(given.get(CA_BUNDLE), off=given.get(INSECURE))]


def _outputs_name(given: Settings) -> str:
    moved = "CKPT_ROOT" in given.own and "SFT_OUTPUTS_DIR" not in given.own
    return "CKPT_ROOT" if moved else "SFT_OUTPUTS_DIR"


def _facts(given: Settings, environ: Mapping[str, str]) -> Facts:
    pretended = given.get("SFT_PRETEND_GPU")
    machine = pretend(pretended) if pretended else hardware.probe(environ)
    wanted = given.get("SFT_DEVICE")
    return Facts(
        machine=machine,
        model=facts.read_model(str(given.axolotl["base_model"].value)),
        local=facts.everything_local(given) or given.get("SFT_LOCAL_FILES_ONLY"),
        data=facts.read_data(_items(given, "datasets")),
        test_data=facts.read_data(_items(given, "test_datasets")),
        device=("cuda" if machine.gpus else "cpu") if wanted == "auto" else wanted,
        tracking=Tracking(
            wandb_key=bool(environ.get("WANDB_API_KEY")),
            wandb_mode=environ.get("WANDB_MODE", "").lower().replace("dryrun", "offline"),
            wandb_project=environ.get("WANDB_PROJECT", ""),
            mlflow_uri=USERINFO.sub("://", environ.get("MLFLOW_TRACKING_URI", "")),
            mlflow_experiment=environ.get("MLFLOW_EXPERIMENT_NAME", ""),
            tensorboard=environ.get("TENSORBOARD_LOGGING_DIR", ""),
        ),
    )


def _items(given: Settings, key: str) -> list[Any]:
    """The data sets of a key that is not set, or is null, are none."""
    return (given.axolotl[key].value if key in given.axolotl else None) or []


def _layout(given: Settings, seen: Facts, where: Rendezvous) -> parallel.Decided:
    file = {}
    if path := accelerate_flags.given(given).get("config_file"):
        try:
            file = dict(documents.read_file(Path(path)).values)
        except documents.DocumentError as error:
            problem = Problem(f"{rendezvous.FLAGS}: config_file", str(error))
            return seen.parallel, [problem]
    return parallel.decide(given, seen.machine, seen.device, where, file)
