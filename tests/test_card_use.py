"""The Python of a model card, run as it stands: it answers as the trained model did."""

import re
from pathlib import Path
from typing import Any

import pytest

from envtune.engine.export.export import RECORD, export
from envtune.stages import model_card, publishing
from envtune.transfer import outgoing
from tests.harness import contents, read
from tests.test_export import answers, bases, kind_of, order, trained  # noqa: F401
from tests.unit.builders import run_config
from tests.unit.stages.test_model_card import RECORD as RUN
from tests.unit.stages.test_model_card import REPORT

CASES = [
    ("plain", "auto", "adapter"),
    ("added-tokens", "auto", "resized"),
    ("added-tokens", "adapter", "adapter"),
    ("single", "auto", "embedding-lora"),
    ("single", "adapter", "adapter"),
]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_the_python_of_a_card_loads_what_was_published(
    case: tuple[str, str, str],
    bases: Path,  # noqa: F811
    trained: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, what, kind = case
    way = kind_of(name)
    adapter, expected = trained(way)
    base, run = bases / way.base, tmp_path / "run"
    run.mkdir()
    (run / "adapter").symlink_to(adapter)
    export(order(adapter, base, run / "serving"))
    serving = read(run / "serving" / RECORD)
    artifact = outgoing.choose(run, what, serving, awq=False)
    assert artifact.kind == kind
    told = model_card.Told(
        RUN,
        run_config({"base_model": str(base)}),
        REPORT,
        serving=serving,
        resized=publishing.grown(adapter, base),
    )
    text = model_card.render(told, artifact, str(tmp_path / "out"))
    outgoing.lay_out(artifact, text, tmp_path / "out")
    for path, content in contents(tmp_path / "out").items():
        assert path == "README.md" or str(tmp_path.parent).encode() not in content
    monkeypatch.chdir(bases)  # where the base's name leads to its folder
    python = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert python
    scope: dict[str, Any] = {}
    exec(python[1], scope)
    assert len(scope["tokenizer"]) == (515 if way.grows else 512)
    assert (answers(scope["model"], way) - expected).abs().max() < 1e-4
