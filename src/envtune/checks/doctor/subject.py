"""What the doctor looks at: this machine, and what is set on it as far as that can be read."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from envtune import venvs
from envtune.checks import preflight
from envtune.checks.doctor.table import Sign, found
from envtune.errors import Problem, Refused
from envtune.machine import hardware
from envtune.machine.hardware import Machine
from envtune.resolve import look
from envtune.resolve.config import Facts
from envtune.settings import given, paths, sources
from envtune.settings.sources import Inputs
from envtune.settings.typed import Settings
from envtune.transfer import deadline, hubcache, remote

# Reading the head of the data and a model's config.json takes no second; a volume may hang.
_PATIENCE = 30.0


@dataclass(frozen=True)
class Subject:
    """The machine and its folders. `facts` are None where no model and data are set, or where
    `problems` or `troubles` keep them from being looked at."""

    environ: Mapping[str, str]
    machine: Machine
    settings: Settings
    outputs: Path
    logs: Path
    caches: Path
    root: Path
    python: str = sys.executable
    passed_on: Mapping[str, str] | None = None
    facts: Facts | None = None
    problems: tuple[Problem, ...] = ()
    troubles: tuple[Sign, ...] = ()

    @property
    def configured(self) -> bool:
        """Whether somebody has set what to train."""
        return bool(self.settings.axolotl or self.problems or self.troubles)


def read(inputs: Inputs) -> Subject:
    """The subject of an environment; the machine alone where what is set cannot be looked at."""
    late = found("D-DOC-01", f"what is set could not be read in {_PATIENCE:.0f} s")
    [seen] = deadline.answers([(lambda: _tried(inputs), lambda: late)], _PATIENCE)
    if isinstance(seen, Subject):
        return seen
    return replace(_read(replace(inputs, layers=())), troubles=(seen,))


def _tried(inputs: Inputs) -> Subject | Sign:
    try:
        return _read(inputs)
    except Exception as error:  # whatever it is, the machine can be looked at
        return found("D-DOC-02", f"{type(error).__name__}: {error}")


def _read(inputs: Inputs) -> Subject:
    """Of a wrong setting it only tells."""
    settings, problems = _settings(inputs)
    environ = {**inputs.environ, **paths.caches(settings.get("SFT_CACHE_DIR"), inputs.environ)}
    outputs, logs = map(Path, paths.folders(settings.get, environ))
    subject = Subject(
        environ=environ,
        machine=_machine(environ),
        settings=settings,
        outputs=outputs,
        logs=logs,
        caches=Path(paths.absolute(hubcache.cache(environ))),
        root=venvs.root(),
        passed_on=inputs.passed_on,
        problems=tuple(problems),
    )
    return subject if problems or not settings.axolotl else _looked_at(subject, inputs)


def _machine(environ: Mapping[str, str]) -> Machine:
    try:
        return hardware.probe(environ)
    except Exception:  # the check of the GPUs meets it too, and tells
        shm = hardware.shm()
        return Machine((), hardware.cores(), hardware.memory(), environ.get("FLAVOR", ""), shm)


def _settings(inputs: Inputs) -> tuple[Settings, Sequence[Problem]]:
    try:
        settings = given.settings(sources.with_documents(inputs))
    except Refused as refused:
        return Settings(), refused.problems
    if not settings.axolotl:
        return settings, settings.problems
    return settings, [line for check in preflight.OF_SETTINGS for line in check(settings)]


def _looked_at(subject: Subject, inputs: Inputs) -> Subject:
    try:
        settings = remote.located(subject.settings, inputs.environ, fetch=False)
        facts = look.look(settings, inputs.environ)
    except Refused as refused:
        return replace(subject, problems=refused.problems)
    return replace(subject, settings=settings, facts=facts, problems=facts.problems)
