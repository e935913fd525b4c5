"""The lists of what is checked before anything starts: each small function gets what is known
by then and tells what is wrong. `check` prints all of it at once.
"""

from collections.abc import Callable, Iterable, Iterator

from envtune.checks import (
    access,
    after_training,
    conflicts,
    data,
    disk,
    fit,
    machine,
    named,
    preparation,
    quantisable,
    room,
    trackers,
    turns,
    vocabulary,
)
from envtune.errors import NothingSet, Problem, Refused
from envtune.machine import certificates
from envtune.resolve import accelerate_flags, owned
from envtune.resolve.config import Facts, RunConfig
from envtune.settings.own.training import OFF, RESUME_FROM
from envtune.settings.typed import Settings
from envtune.supervise import finish
from envtune.transfer import remote

Check = Callable[[Settings, Facts], Iterable[Problem]]

_DATA_KEYS = ("datasets", "pretraining_dataset")


def refuse_settings(settings: Settings) -> None:
    """Raises Refused, or NothingSet, where the settings alone are wrong."""
    problems = [problem for check in OF_SETTINGS for problem in check(settings)]
    if problems:
        raise (Refused if settings.axolotl else NothingSet)(problems)


def refuse(checks: Iterable[Check], settings: Settings, facts: Facts) -> None:
    """Raises Refused with all that a list of checks finds wrong."""
    if problems := [problem for check in checks for problem in check(settings, facts)]:
        raise Refused(problems)


def judged(settings: Settings, facts: Facts) -> Facts:
    """`facts` with what others know. Raises Refused where this start cannot come to its end."""
    refuse(HERE, settings, facts)
    for ask, checks in ASKED:
        facts = ask(settings, facts)
        refuse(checks, settings, facts)
    return facts


def _missing(settings: Settings) -> Iterator[Problem]:
    if "base_model" not in settings.axolotl:
        yield Problem(
            "AXOLOTL_BASE_MODEL",
            "is not set; name a model of the Hub or a local folder, e.g. "
            "AXOLOTL_BASE_MODEL=NousResearch/Llama-3.2-1B",
        )
    if not any(settings.axolotl.get(key) and settings.axolotl[key].value for key in _DATA_KEYS):
        yield Problem(
            "AXOLOTL_DATASETS",
            "is not set; name what to train on, e.g. "
            'AXOLOTL_DATASETS=\'[{"path": "data.jsonl", "type": "alpaca"}]\'',
        )
    if settings.passes_through and "learning_rate" not in settings.axolotl:
        yield Problem(
            "AXOLOTL_LEARNING_RATE",
            "is not set; RL and vision configurations are not tuned for you, e.g. "
            "AXOLOTL_LEARNING_RATE=5e-6",
        )


def _idle(settings: Settings) -> Iterator[Problem]:
    """Names that contradict each other."""
    if {"FORCE_RUN_NAME", "FORCE_RUN_INDEX"} <= settings.own.keys():
        yield Problem("FORCE_RUN_INDEX", "is set and so is FORCE_RUN_NAME, which has its number")
    if "LEGACY_RUN_NAME" in settings.own and not settings.get("USE_LEGACY_NAMING"):
        yield Problem("LEGACY_RUN_NAME", "does nothing without USE_LEGACY_NAMING=1; set both")


def _untrusted(settings: Settings, facts: Facts) -> Iterable[Problem]:
    bundle, off = (settings.get(n) for n in (certificates.CA_BUNDLE, certificates.INSECURE))
    return certificates.problems(bundle, off=off)


OF_SETTINGS: tuple[Callable[[Settings], Iterable[Problem]], ...] = (
    lambda settings: settings.problems,
    _missing,
    owned.refusals,
    accelerate_flags.refusals,
    _idle,
    conflicts.problems,
    preparation.problems,
    remote.problems,
)
HERE: tuple[Check, ...] = (
    lambda settings, facts: facts.problems,
    machine.device,
    named.problems,
    data.problems,
    data.rows,
    data.types,
    fit.problems,
    turns.problems,
    vocabulary.problems,
    conflicts.generations,
    trackers.problems,
    machine.deepspeed,
    after_training.problems,
    machine.folders,
    machine.live_page,
    disk.problems,
    finish.problems,
    _untrusted,
    access.local_problems,
)
# What others are asked once all that is here is well, and what is judged by their answers.
ASKED: tuple[tuple[Callable[[Settings, Facts], Facts], tuple[Check, ...]], ...] = (
    (access.verify, (quantisable.model_problems, fit.model_problems, turns.problems)),
)


def _unsafe(settings: Settings, facts: Facts) -> Iterator[str]:
    """What a stop or a kill costs with these settings."""
    strategy = settings.axolotl.get("save_strategy")
    if strategy is not None and strategy.value == "no":
        yield f"{strategy.name}: only SIGTERM saves; a killed run starts from nothing"


def _pretended(settings: Settings, facts: Facts) -> Iterator[str]:
    if settings.get("SFT_PRETEND_GPU"):
        yield f"SFT_PRETEND_GPU: checked for {facts.machine}, whatever is here"


def _again(settings: Settings, facts: Facts) -> Iterator[str]:
    if settings.get("SFT_RERUN"):
        yield (
            "SFT_RERUN: every start after a finished one trains again; an unfinished run goes on "
            f"({RESUME_FROM}={OFF} begins it anew)"
        )
    if settings.get(RESUME_FROM) == OFF:
        yield (
            f"{RESUME_FROM}={OFF}: every start of an unfinished run begins anew, a restarted "
            "container's too"
        )


WARNINGS: tuple[Callable[[Settings, Facts], Iterable[str]], ...] = (
    _unsafe,
    conflicts.batch,
    conflicts.idle,
    disk.warnings,
    _pretended,
    data.masks_nothing,
    fit.warnings,
    _again,
    finish.warnings,
    lambda settings, facts: facts.warnings,
)


def warnings(settings: Settings, facts: Facts) -> tuple[str, ...]:
    """What the user may do and should know."""
    return tuple(line for warn in WARNINGS for line in warn(settings, facts))


def planned(config: RunConfig) -> tuple[str, ...]:
    """What the user should know of what was chosen. Raises Refused where it cannot be done."""
    if problems := list(room.problems(config)):
        raise Refused(problems)
    return tuple(room.warnings(config))
