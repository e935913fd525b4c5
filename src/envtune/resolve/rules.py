"""Settings and facts -> RunConfig, by ordered pure rules.

The user's values are there first and no rule touches them. A rule looks at the facts and
at what is chosen so far and returns a Choice, or None when it has nothing to say. The
order of RULES is the order of the YAML.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from envtune.redaction import Secret, is_secret
from envtune.resolve import (
    batch,
    data,
    method,
    owned,
    parallel,
    planning,
    precision,
    saving,
    tracking,
    turns,
)
from envtune.resolve.config import Choice, Facts, RunConfig, Value
from envtune.resolve.plan import reasons
from envtune.settings.own import OWN
from envtune.settings.own.preparation import FILTERS
from envtune.settings.typed import IMPLIED, Setting, Settings

Rule = Callable[[Facts, Mapping[str, Any]], Choice | None]

TUNING: tuple[tuple[str, Rule], ...] = (*method.RULES, *data.RULES, *turns.RULES, *batch.RULES)
RUNNING: tuple[tuple[str, Rule], ...] = (*precision.RULES, *saving.RULES, *tracking.RULES)
RULES = (*TUNING, *RUNNING)
# What follows from the plan, which is made of all else; the order in the YAML is that of RULES.
PLANNED = (
    "learning_rate", "optimizer", "micro_batch_size", "gradient_accumulation_steps",
    "sample_packing", "pad_to_sequence_len", "eval_batch_size", "sdpa_varlen",
    "gradient_checkpointing", "activation_offloading",
)  # fmt: skip

DEFAULT = "envtune"
# Null means the base model's own; Axolotl trips over the null itself.
NEVER_NULL = ("base_model_config", "tokenizer_config")


def resolve(settings: Settings, facts: Facts) -> RunConfig:
    """Every value that the YAML will hold, each with its source."""
    values = {
        key: Value(s.value, s.name)
        for key, s in settings.axolotl.items()
        if (s.value is not None or key not in NEVER_NULL) and not _too_long(key, s, facts)
    }
    output_dir, resume_from = (
        _taken(values, key) for key in ("output_dir", "resume_from_checkpoint")
    )
    own = _own(settings)
    values = data.with_types(values, facts, _sample(settings))
    values |= data.streamed(values) | method.named(values)
    if settings.passes_through:
        values = _ruled(values, RUNNING, facts)
    else:
        values, facts = _with_plan(values, facts)
        values |= planning.with_liger(values, facts)
        # Axolotl 0.19 accumulates one step where only the batch is given, whatever its size.
        values.pop("batch_size", None)
    values = parallel.with_keys(values, facts)
    values |= owned.ours(values, output_dir)
    return RunConfig(
        axolotl=_ordered(values),
        own=own,
        device=facts.device,
        parallel=facts.parallel,
        plan=facts.plan,
        output_dir=str(output_dir.value) if output_dir else None,
        resume_from=str(resume_from.value) if resume_from else None,
        offline=facts.local,
        untyped={} if settings.passes_through else data.untyped(settings),
        warnings=settings.warnings,
        notes=settings.notes,
    )


Values = dict[str, Value]


def _ruled(values: Values, rules: Iterable[tuple[str, Rule]], facts: Facts) -> Values:
    """`values` with what rules say of keys that are not there."""
    made = dict(values)
    for key, rule in rules:
        if key not in made:
            choice = rule(facts, {name: v.value for name, v in made.items()})
            if choice is not None:
                made[key] = Value(choice.value, DEFAULT, choice.reason)
    return made


def _with_plan(values: Values, facts: Facts) -> tuple[Values, Facts]:
    """`values` with what all rules say, and `facts` with the plan. Where LoRA is envtune's choice
    and does not fit, four bits are tried."""
    first = [(key, rule) for key, rule in RULES if key not in PLANNED]
    then = [(key, rule) for key, rule in RULES if key in PLANNED]
    made = _ruled(values, first, facts)
    plan = planning.make(made, facts)
    if plan and not plan.fits and plan.job.may_quantise:
        smaller = replace(facts, unfit=reasons.of_memory(plan))
        packed = _ruled(values, first, smaller)
        if (other := planning.make(packed, smaller)) and other.fits:
            made, plan = packed, other
    facts = replace(facts, plan=plan)
    facts = replace(facts, parallel=parallel.planned(facts))
    return _ruled(made, then, facts), facts


def _sample(settings: Settings) -> int | None:
    """The first rows that are taken by the split's name; the preparation takes them after its
    filters."""
    size: int | None = settings.get("SFT_SAMPLE_SIZE")
    filtered = any(settings.get(name) for name in FILTERS if name != "SFT_SAMPLE_SIZE")
    return None if filtered else size


def _too_long(key: str, setting: Setting, facts: Facts) -> bool:
    """Whether it is a tool's own length of a sequence, which ends at the model's context."""
    if key != "sequence_len" or setting.layer != IMPLIED or facts.model.context is None:
        return False
    return bool(setting.value > facts.model.context)


def _taken(values: dict[str, Value], key: str) -> Value | None:
    """A value that leaves the YAML because another part of the run carries it."""
    value = values.pop(key, None)
    return value if value is not None and value.value is not None else None


def _own(settings: Settings) -> dict[str, Value]:
    return {
        name: Value(_kept(name, settings), name if name in settings.own else DEFAULT)
        for name in OWN
    }


def _kept(name: str, settings: Settings) -> Any:
    """A setting as the run's record may hold it: who needs a secret reads the environment."""
    value = settings.get(name)
    return repr(Secret(value)) if value is not None and is_secret(name) else value


def _ordered(values: Mapping[str, Value]) -> dict[str, Value]:
    """The rules' order first, then what no rule knows, by name."""
    known = list(dict.fromkeys(["base_model", "datasets", *(key for key, _ in RULES)]))
    rest = sorted(key for key in values if key not in known)
    return {key: values[key] for key in [*known, *rest] if key in values}
