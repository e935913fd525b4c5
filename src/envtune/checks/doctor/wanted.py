"""The doctor on what is set: settings, repositories, trackers and data, as a start checks them."""

from collections.abc import Iterable, Iterator

from envtune.checks import access, data, machine, preflight, trackers
from envtune.checks.doctor import network
from envtune.checks.doctor.subject import Subject
from envtune.checks.doctor.table import Sign, found, problem, skipped, well
from envtune.errors import Exit, Problem
from envtune.redaction import HUB_TOKENS
from envtune.settings import publish_targets
from envtune.supervise import trackers as asked
from envtune.transfer import availability, hub
from envtune.transfer.repositories import repositories

_NOTHING = "nothing is set that a run could be made of"
_REFUSED = "the settings are not taken as they are, so that nobody knows what is asked for"
# Checks of a start that have findings of their own here.
_DATA = (data.problems, data.rows, data.types)
_ELSEWHERE = (*_DATA, trackers.problems, machine.device, machine.folders, access.local_problems)


def settings(subject: Subject) -> Iterator[Sign]:
    """Whether what is set is taken, alone and on this machine."""
    if not subject.configured:
        yield skipped(_NOTHING)
        return
    yield from subject.troubles
    wrong = list(subject.problems)
    if subject.facts is not None and not wrong:
        checks = [check for check in preflight.HERE if check not in _ELSEWHERE]
        wrong = _told(subject, checks)
    yield from (problem("D-CFG-01", told) for told in wrong)
    if not wrong and not subject.troubles:
        yield well(f"{len(subject.settings.axolotl)} keys of Axolotl's are taken")


def _told(subject: Subject, checks: Iterable[preflight.Check]) -> list[Problem]:
    assert subject.facts is not None
    return [line for check in checks for line in check(subject.settings, subject.facts)]


def _unknown(subject: Subject) -> str:
    """Why there is nothing to ask of what is set, or nothing."""
    if not subject.configured:
        return _NOTHING
    return _REFUSED if subject.facts is None or subject.problems else ""


def repositories_of(subject: Subject) -> Iterator[Sign]:
    """Whether models and data sets may be read, and places to publish to be written."""
    if why := _unknown(subject):
        yield from _token(subject, why)
        return
    here = _told(subject, (access.local_problems,))
    yield from (problem("D-HUB-03", told) for told in here)
    wanted, places = repositories(subject.settings), publish_targets.wanted(subject.settings)
    local_only = subject.settings.get("SFT_LOCAL_FILES_ONLY")
    known = availability.ask(wanted, places, subject.environ, local_only=local_only)
    lines = [answer.problem for answer in known.answers if answer.problem]
    yield from (_refused(told, {place.name for place in places}) for told in dict.fromkeys(lines))
    yield from (well(answer.warning) for answer in known.answers if answer.warning)
    if not here and not lines:
        several = len(wanted) + len(places)
        yield well(f"all {several} may be used" if several else "all that is asked for is here")


def _refused(told: Problem, published: set[str]) -> Sign:
    if told.name in (*HUB_TOKENS, hub.STORED):
        return problem("D-HUB-02", told)
    return problem("D-HUB-04" if told.name in published else "D-HUB-03", told)


def _token(subject: Subject, why: str) -> Iterator[Sign]:
    """The token alone, where nobody says what it is for."""
    if switch := network.not_asked(subject):
        yield skipped(switch)
    elif not hub.token(subject.environ):
        yield skipped(f"{why}, and HF_TOKEN is not set")
    elif told := hub.token_trouble(subject.environ):
        yield problem("D-HUB-02", told) if told.exit == Exit.ACCESS else skipped(str(told))
    else:
        yield well("the Hub takes the token")


def tracked(subject: Subject) -> Iterator[Sign]:
    """Whether what runs are tracked by is installed and answers."""
    environ = subject.environ
    plain = {key: setting.value for key, setting in subject.settings.axolotl.items()}
    plain.setdefault("use_wandb", bool(environ.get("WANDB_API_KEY")))
    plain.setdefault("use_mlflow", bool(environ.get("MLFLOW_TRACKING_URI")))
    wrong = _told(subject, (trackers.problems,)) if not _unknown(subject) else []
    yield from (problem("D-TRK-01", told) for told in wrong)
    said = asked.asked(plain, environ)
    yield from (found("D-TRK-02", f"{name}: {why}") for name, why in said.items() if why)
    answering = [name for name, why in said.items() if not why]
    if answering:
        yield well(f"{', '.join(answering)} answers and takes the key")
    elif not wrong and not said:
        yield skipped("nobody is to be asked")


def rows(subject: Subject) -> Iterator[Sign]:
    """Whether the data can be read, and the first rows of each local file."""
    if why := _unknown(subject):
        yield skipped(why)
        return
    wrong = _told(subject, _DATA)
    yield from (problem("D-DAT-01", told) for told in wrong)
    facts = subject.facts
    if not wrong and facts is not None:
        here = sum(one.local for one in facts.data)
        yield well(f"{here} of {len(facts.data)} data sets are here, and their first rows are well")
