"""A name of another tool's is told as ours before spelling is compared."""

import pytest

from envtune.cli.arguments import parser
from envtune.cli.verbs import VERBS
from envtune.settings import axolotl_keys, dialects, upstream
from envtune.settings.own import OWN
from envtune.settings.spelling import synonyms
from tests.unit.builders import problems

FIELDS = axolotl_keys.schema().fields
# The environment's own, which other tools read too.
PLAIN = {"NPROC", "NNODES"}


def test_what_is_meant_exists_and_what_is_said_does_not() -> None:
    served = {f"SFT_SERVE_{flag.upper()}" for flag in upstream.vllm()["flags"]}
    assert set(synonyms.KEYS.values()) <= {*FIELDS, *OWN, *served, *PLAIN}
    assert not synonyms.KEYS.keys() & FIELDS.keys()
    assert set(synonyms.VERBS.values()) <= set(VERBS)
    assert not synonyms.VERBS.keys() & VERBS.keys()
    assert len(synonyms.KEYS) > 60


@pytest.mark.parametrize("said", [k for k in synonyms.KEYS if f"AXOLOTL_{k.upper()}" not in OWN])
def test_each_is_told_under_each_prefix_where_it_is_no_name(said: str) -> None:
    key = synonyms.KEYS[said]
    wanted = f"AXOLOTL_{key.upper()}" if key in FIELDS else key
    for prefix in ("AXOLOTL_", "SFT_"):
        name = f"{prefix}{said.upper()}"
        if name in OWN or (prefix == "SFT_" and said in dialects.flags()):
            continue
        assert problems({name: "1"}) == [f"{name}: no such setting; did you mean {wanted}?"]


@pytest.mark.parametrize("said", synonyms.VERBS)
def test_a_verb_of_another_tool_is_told_as_ours(
    said: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([said])
    assert ended.value.code == 1
    assert f"did you mean `envtune {synonyms.VERBS[said]}`?" in caplog.text
