"""Tasks of lm_eval on a model that is loaded already."""

from collections.abc import Sequence
from typing import Any

from envtune.errors import Exit, Problem, Refused

_AT_ONCE = 8
# What lm_eval says of a task besides its measures.
_NO_MEASURE = ("alias", "name", "sample_len", "sample_count")


class Tasks:
    """The tasks by name; what cannot be loaded is told before a model is. Raises Refused."""

    def __init__(self, names: Sequence[str], folder: str | None, limit: int | None) -> None:
        from lm_eval.tasks import TaskManager, get_task_dict

        self.names, self.limit = list(names), limit
        self.manager = TaskManager(include_path=folder)
        for name in names:
            try:
                get_task_dict([name], self.manager)
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                what = f"task {name} cannot be loaded: {type(error).__name__}: {error}"
                raise Refused([Problem("SFT_EVAL_TASKS", what, Exit.DATA)]) from error

    def score(self, model: Any, tokenizer: Any) -> dict[str, dict[str, float]]:
        """Each task's measures by lm_eval's names, `acc,none` or `exact_match,strict-match`."""
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        # lm_eval ties the weights of what it is given, and undoes what was trained apart.
        model.tie_weights = lambda: None
        scored = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_AT_ONCE),
            tasks=self.names,
            limit=self.limit,
            task_manager=self.manager,
            log_samples=False,
        )
        return {task: _measures(found) for task, found in scored["results"].items()}


def _measures(found: dict[str, Any]) -> dict[str, float]:
    return {
        name: round(float(value), 6)
        for name, value in found.items()
        if name not in _NO_MEASURE and isinstance(value, int | float)
    }
