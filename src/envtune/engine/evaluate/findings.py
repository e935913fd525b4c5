"""What was measured, as results.json holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envtune.engine.evaluate import losses
from envtune.engine.evaluate.generation import Answer
from envtune.engine.evaluate.trained import BASE
from envtune.settings.prompts import Prompt
from envtune.stages import metrics

# Changes when a name or a unit in results.json does.
SCHEMA = 1


@dataclass(frozen=True)
class Side:
    """What was measured of one model.

    `losses` of each validation row and, of the base, `judgements` of each answer, the tuned
    model's first: sums in nats with their tokens. `tasks` holds lm_eval's measures by task.
    """

    losses: list[tuple[float, int]]
    answers: list[Answer]
    judgements: list[tuple[float, int]]
    tasks: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Findings:
    """The sides, tuned first, and what they were asked: the last `pairs` have references."""

    sides: Mapping[str, Side]
    asked: Sequence[Prompt]
    pairs: int
    tokenizer: Any

    def results(self, source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Everything. `source`: where the validation rows come from, or why there are none."""
        told = self._told()
        return {
            "schema": SCHEMA,
            "validation": self._validation(source),
            "generation": self._generation(told, settings) if self.asked else {},
            "references": self._references(told) if self.pairs else {},
            "tasks": {
                task: {name: side.tasks[task] for name, side in self.sides.items()}
                for task in self.sides[BASE].tasks
            },
            "samples": [
                {
                    "prompt": prompt.chat,
                    "references": list(prompt.references),
                    **{side: _sample(answers[number]) for side, answers in told.items()},
                }
                for number, prompt in enumerate(self.asked)
            ],
        }

    def _validation(self, source: str) -> dict[str, Any]:
        rows = self.sides[BASE].losses
        if not rows:
            return {"skipped": source}
        means = {name: losses.mean(side.losses) for name, side in self.sides.items()}
        tokens = sum(count for _, count in rows)
        return {"rows": len(rows), "tokens": tokens, "source": source, **means}

    def _told(self) -> dict[str, list[dict[str, Any]]]:
        """The answers of each side as `measures` wants them."""
        judgements = iter(self.sides[BASE].judgements)
        return {
            name: [
                self._answer(prompt, answer, *next(judgements))
                for prompt, answer in zip(self.asked, side.answers, strict=True)
            ]
            for name, side in self.sides.items()
        }

    def _answer(self, prompt: Prompt, answer: Answer, nats: float, tokens: int) -> dict[str, Any]:
        text = self.tokenizer.decode(answer.ids, skip_special_tokens=True)
        kept = metrics.checks(text, answer.ids, stopped=answer.stopped, prompt=vars(prompt))
        likelihood = -nats / tokens if tokens else None
        return {"text": text, "ids": answer.ids, "checks": kept, "likelihood": likelihood}

    def _generation(
        self, told: Mapping[str, list[dict[str, Any]]], settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        summaries = {side: metrics.summary(answers) for side, answers in told.items()}
        return {"settings": dict(settings), **summaries}

    def _references(self, told: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
        wanted = [prompt.references for prompt in self.asked[-self.pairs :]]
        texts = {side: [a["text"] for a in found[-self.pairs :]] for side, found in told.items()}
        likeness = {side: metrics.likeness(found, wanted) for side, found in texts.items()}
        return {"pairs": self.pairs, **likeness}


def _sample(answer: Mapping[str, Any]) -> dict[str, Any]:
    likelihood = answer["likelihood"]
    return {
        "text": answer["text"],
        "tokens": len(answer["ids"]),
        "words": metrics.words(answer["text"]),
        "sentences": metrics.sentences(answer["text"]),
        "repetition": metrics.repetition(answer["ids"]),
        "coherence": None if likelihood is None else round(likelihood, 4),
        "checks": answer["checks"],
    }
