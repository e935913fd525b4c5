"""What people read at the start and at the end of a run. Pure text."""

from collections.abc import Iterator, Sequence
from typing import Any

from envtune.columns import columns
from envtune.errors import Problem, Refused
from envtune.resolve import owned
from envtune.resolve.batch import batch_sum
from envtune.resolve.config import RunConfig, Value
from envtune.settings import retired
from envtune.settings.axolotl_keys import schema
from envtune.settings.own import OWN
from envtune.settings.sources import AXOLOTL
from envtune.settings.spelling import synonyms
from envtune.settings.spelling.nearest import nearest
from envtune.settings.typed import Setting, Settings
from envtune.venvs import beside, door

_VALUE_WIDTH = 44

NOTHING_SET = "envtune trains what the environment says, and nothing is set."
_MODEL = "AXOLOTL_BASE_MODEL=NousResearch/Llama-3.2-1B"
_DATA = """AXOLOTL_DATASETS='[{"path": "mhenrichsen/alpaca_2k_test", "type": "alpaca"}]'"""
# What a container of each flavour needs to be started with; Docker's own 10 s end a save.
_FLAGS = {
    "cuda": "--gpus all --shm-size=8g --stop-timeout 60",
    "cpu": "--shm-size=1g --stop-timeout 60",
}


def usage(flavor: str) -> str:
    """What to set, for somebody who has set nothing; `flavor` is the image's, empty outside."""
    return f"""\
{NOTHING_SET} It needs at least
  AXOLOTL_BASE_MODEL   a model of the Hub or a local folder
  AXOLOTL_DATASETS     what to train on, as a JSON list
for example
{_by_docker(flavor) if flavor in _FLAGS else _by_shell()}
Every other key of Axolotl works too, as AXOLOTL_<KEY>. HF_TOKEN and WANDB_API_KEY log in.
`idle` keeps the container for a shell; any other command runs as it is.
Read {beside("README.md")} first, then `envtune --help`.
"""


def _by_shell() -> str:
    return f"  export {_MODEL}\n  export {_DATA}\n  {door()}"


def _by_docker(flavor: str) -> str:
    return f"""\
  docker run {_FLAGS[flavor]} -v envtune:/workspace \\
    -e {_MODEL} \\
    -e {_DATA} \\
    envtune:{flavor}
or `export` both in a shell of the container and call {door()}"""


def configuration(config: RunConfig, width: int | None = None) -> str:
    """Every resolved value, its source and reason, and the batch sum.

    `width` in characters cuts the lines for a terminal; None leaves them whole.
    """
    rows = [(key, _shown(value), _why(value)) for key, value in config.axolotl.items()]
    rows.append(("batch", batch_sum(config), "sequences a step"))
    return columns(("setting", "value", "from"), rows, width)


def explanation(config: RunConfig, settings: Settings, name: str) -> str:
    """One setting: value, source, what it overrode and what it means. Raises Refused."""
    if name.upper() in OWN:
        return _explained_own(config, settings, name.upper())
    types = schema()
    fields = types.fields
    key = name.removeprefix(AXOLOTL).lower()
    key = retired.RENAMED.get(key) or retired.FLAGS.get(key, (key,))[0]
    if key not in fields:
        hint = synonyms.meant(key.removeprefix("sft_")) or nearest(key, [*fields, *OWN])
        what = f"no such setting{f'; did you mean {hint}?' if hint else ''}"
        raise Refused([Problem(name, what)])
    rows = [("setting", f"{key} ({AXOLOTL}{key.upper()})")]
    given = settings.axolotl.get(key)
    if key in config.axolotl:
        rows += [("value", _text(config.axolotl[key].value)), ("from", _why(config.axolotl[key]))]
    elif given is None:
        rows.append(("value", "not set: Axolotl's own default"))
    if given is not None and (key in owned.TAKEN or key not in config.axolotl):
        rows += [("set", f"{_text(given.value)} ({given.name})")]
        rows += [("becomes", owned.TAKEN.get(key, "nothing: Axolotl's own default holds"))]
    rows += _overrode(given)
    rows.append(("takes", types.describe(fields[key])))
    rows.append(("means", fields[key].get("description") or "Axolotl does not say"))
    return _titled(rows)


def _explained_own(config: RunConfig, settings: Settings, name: str) -> str:
    value = config.own[name]
    source = "the default" if name not in settings.own else settings.own[name].name
    rows = [("setting", name), ("value", _text(value.value)), ("from", source)]
    rows += _overrode(settings.own.get(name))
    rows += [("takes", schema().describe(OWN[name].node)), ("means", OWN[name].meaning)]
    return _titled(rows)


def _overrode(setting: Setting | None) -> Iterator[tuple[str, str]]:
    """What weaker layers had said, the strongest first."""
    while setting is not None and setting.weaker is not None:
        setting = setting.weaker
        yield "overrode", f"{_text(setting.value)} ({setting.name}, {setting.layer})"


def _titled(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{title.ljust(9)} {text}" for title, text in rows)


def _text(value: Any) -> str:
    """A value on one line, in the words of the environment."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    return text if text.isprintable() else repr(text)


def _shown(value: Value) -> str:
    text = _text(value.value)
    return text if len(text) <= _VALUE_WIDTH else text[: _VALUE_WIDTH - 3] + "..."


def _why(value: Value) -> str:
    return f"{value.source}: {value.reason}" if value.reason else value.source
