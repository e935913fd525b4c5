"""Measures of answers. Pure, and without torch: texts and token ids in, numbers out.

Repetition and diversity count token ids, so that they mean the same in a language that
puts no spaces between words.
"""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from envtune.data.taken import language

# Above this share of repeated n-grams an answer runs in circles.
REPETITIVE = 0.3
_GRAM = 4

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001
# What ends a sentence: not the dot of 3.5, nor that of an abbreviation before a small letter.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s+[^\sa-zß-ÿ]|\s*$)|[。！？]+[」』”]*")  # noqa: RUF001


def words(text: str) -> int:
    """How many words a text has; one of a script without spaces counts as one a run."""
    return len(_WORD.findall(text))


def sentences(text: str) -> int:
    """How many sentences a text has. A line break ends one, as in a list."""
    parts = (part for line in text.splitlines() for part in _END.split(line))
    return sum(1 for part in parts if _WORD.search(part))


def repetition(ids: Sequence[int]) -> float:
    """The share of 4-grams of token ids that stood before, from 0 to 1."""
    grams = _grams(ids, _GRAM)
    return round(1 - len(set(grams)) / len(grams), 4) if grams else 0.0


def distinct(answers: Iterable[Sequence[int]], n: int) -> float | None:
    """distinct-n: the share of different ones among all n-grams of token ids, or None."""
    grams = [gram for ids in answers for gram in _grams(ids, n)]
    return round(len(set(grams)) / len(grams), 4) if grams else None


def _grams(ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]


def checks(
    text: str, ids: Sequence[int], *, stopped: bool, prompt: Mapping[str, Any]
) -> dict[str, bool]:
    """What an answer had to keep: each check that applies, and whether it passed.

    `stopped`: the model ended it, not the limit of tokens. `prompt` may ask for a
    `language` and for `max_sentences`.
    """
    found = {
        "stopped": stopped,
        "not empty": bool(text.strip()),
        "not repetitive": repetition(ids) <= REPETITIVE,
    }
    if asked := prompt.get("language"):
        kept = language.in_one_of(text, [asked]) if text.strip() else False
        found |= {} if kept is None else {"language": kept}
    if limit := prompt.get("max_sentences"):
        found["max sentences"] = sentences(text) <= limit
    return found


def summary(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of a model's answers; shares are from 0 to 1, lengths in their own units.

    An answer has `text`, `ids`, `checks`, and `likelihood` or None.
    """
    passed: dict[str, list[bool]] = {}
    for answer in answers:
        for name, kept in answer["checks"].items():
            passed.setdefault(name, []).append(kept)
    judged = [a["likelihood"] for a in answers if a["likelihood"] is not None]
    return {
        "answers": len(answers),
        "success_rate": _mean([all(answer["checks"].values()) for answer in answers]),
        "checks": {name: _mean(kept) for name, kept in passed.items()},
        "repetition": _mean([repetition(answer["ids"]) for answer in answers]),
        "distinct_1": distinct((answer["ids"] for answer in answers), 1),
        "distinct_2": distinct((answer["ids"] for answer in answers), 2),
        "coherence": _mean(judged) if judged else None,
        "tokens": spread([len(answer["ids"]) for answer in answers]),
        "words": spread([words(answer["text"]) for answer in answers]),
        "sentences": spread([sentences(answer["text"]) for answer in answers]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 4)


def spread(values: Sequence[int]) -> dict[str, float]:
    """How lengths are distributed."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "mean": round(statistics.fmean(values), 2),
        "max": max(values),
    }


def likeness(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """How near answers are to their references, from 0 to 100.

    BLEU and chrF of sacrebleu over the corpus; the mean F1 of ROUGE, against the best of an
    answer's references.
    """
    import sacrebleu

    most = max(map(len, references))
    # None stands where an answer has fewer references than another.
    columns: list[Any] = [
        [refs[i] if i < len(refs) else None for refs in references] for i in range(most)
    ]
    rouge = list(_rouge(answers, references))
    return {
        "bleu": round(sacrebleu.corpus_bleu(list(answers), columns).score, 2),
        "chrf": round(sacrebleu.corpus_chrf(list(answers), columns).score, 2),
        **{
            name: round(100 * statistics.fmean(scores[name] for scores in rouge), 2)
            for name in ("rouge1", "rouge2", "rougeL")
        },
    }


class _Words:
    """ROUGE's own tokenizer knows the letters a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


def _rouge(
    answers: Sequence[str], references: Sequence[Sequence[str]]
) -> Iterator[dict[str, float]]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
    for answer, refs in zip(answers, references, strict=True):
        scored = scorer.score_multi(refs, answer)
        yield {name: score.fmeasure for name, score in scored.items()}
