"""The pages and the table that come of an evaluation's results."""

from typing import Any

import pytest

from envtune.stages import samples

HOSTILE = '<script>alert("1")</script>\n```\n# not a heading\n````\n| a |'


def answer(text: str, **checks: bool) -> dict[str, Any]:
    return {"text": text, "tokens": 3, "checks": checks or {"stopped": True}}


def results(**blocks: Any) -> dict[str, Any]:
    """Results with nothing measured but what is given."""
    empty = {"validation": {"skipped": "no rows"}, "generation": {}, "references": {}}
    return {**empty, "tasks": {}, "samples": [], **blocks}


SAMPLE = {
    "prompt": [{"role": "user", "content": HOSTILE}],
    "references": [HOSTILE],
    "base": answer(HOSTILE, stopped=False),
    "tuned": answer("Fine."),
}


def test_what_a_model_says_is_text_and_never_a_part_of_the_page() -> None:
    page = samples.pages(results(samples=[SAMPLE]), "run<1>")["samples.html"]
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3
    assert "<h1>What run&lt;1&gt; answers</h1>" in page
    assert "✗ stopped" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched


def test_a_block_of_markdown_ends_where_the_answer_does() -> None:
    page = samples.pages(results(samples=[SAMPLE]), "run1")["samples.md"]
    assert page.count(f"`````text\n{HOSTILE}\n`````") == 3
    assert "```text\nFine.\n```" in page
    assert "fails: stopped" in page


def test_what_was_not_measured_is_said() -> None:
    for page in samples.pages(results(), "run1").values():
        assert "No validation loss: no rows." in page


def measured(**more: Any) -> dict[str, Any]:
    length = {"min": 1, "median": 2.5, "mean": 3, "max": 9}
    lengths = dict.fromkeys(("tokens", "words", "sentences"), length)
    figures = {"success_rate": 0.5, "repetition": 0.25, "distinct_1": None, "distinct_2": 1.0}
    return {**figures, "coherence": -1.5, "checks": {"stopped": 0.5}, **lengths, **more}


@pytest.mark.parametrize(
    ("blocks", "row"),
    [
        ({"validation": {"base": {"loss": 6.91, "perplexity": 1003.1}, "tuned": {"loss": 2.45, "perplexity": 11.6}}},
         ("validation perplexity", "1,003", "11.6")),
        ({"generation": {"base": measured(), "tuned": measured(success_rate=1.0)}},
         ("answers that pass every check", "50%", "100%")),
        ({"generation": {"base": measured(), "tuned": measured()}}, ("distinct-1", "-", "-")),
        ({"generation": {"base": measured(checks={}), "tuned": measured()}}, ("- stopped", "-", "50%")),
        ({"generation": {"base": measured(), "tuned": measured()}},
         ("tokens of an answer", "2.5 (1 to 9)", "2.5 (1 to 9)")),
        ({"references": dict.fromkeys(("base", "tuned"), dict.fromkeys(("bleu", "chrf", "rouge1", "rouge2", "rougeL"), 41.257))},
         ("chrF of the pairs", "41.26", "41.26")),
        ({"tasks": {"arc_easy": {"base": {"acc,none": 0.25, "acc_stderr,none": 0.1}, "tuned": {"acc,none": 0.5, "acc_stderr,none": 0.1}}}},
         ("arc_easy acc", "0.25", "0.5")),
    ],
)  # fmt: skip
def test_each_measure_has_a_row(blocks: dict[str, Any], row: tuple[str, str, str]) -> None:
    found = list(samples.rows(results(**blocks)))
    assert row in found
    assert not [name for name, *_ in found if "stderr" in name]
    assert samples.table(results(**blocks)).splitlines()[0].split() == ["measure", "base", "tuned"]
