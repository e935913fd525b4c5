"""What of an adapter vLLM can serve, and what an export has to make of it. Pure.

vLLM reads LoRA matrices and nothing else of an adapter: no tokenizer, no chat template, no
rows of an embedding. What else it holds has to move into the base or into matrices, or the
adapter has to be merged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from envtune.artifacts import serving_rules as rules
from envtune.artifacts.adapters import (
    INPUT,
    LORA,
    OUTPUT,
    ROWS,
    TOKENS,
    Adapter,
    Base,
    Embedding,
    Tokenizer,
    embeddings,
    ranks,
    split,
)

Kind = Literal["plain", "resized", "embedding-lora", "merged"]


@dataclass(frozen=True)
class Decision:
    """What an export makes of an adapter, and why.

    plain           served as it is
    resized         its rows go into a copy of the base, the matrices stay the adapter
    embedding-lora  its rows become matrices of the embedding, exactly
    merged          vLLM does not serve it; only the merged model can be

    `rank` is the highest of any layer, `max_lora_rank` what vLLM is given for it, None where
    it is merged. `tokenizer_changes` against the base's matter since vLLM takes tokenizer and
    chat template from the base unless it is told otherwise.
    """

    kind: Kind
    reason: str
    rank: int
    max_lora_rank: int | None
    embeddings: tuple[Embedding, ...] = ()
    tokenizer_changes: tuple[str, ...] = ()


def decide(adapter: Adapter, base: Base) -> Decision:
    """How an adapter that fits its base (`fit.problems`) is to be served."""
    trained = embeddings(adapter, base)
    kind, reason = _kind(adapter, base, trained)
    tokens = [len(e.indices) for e in trained] if kind == "embedding-lora" else []
    highest = max(*ranks(adapter.config), 0, *tokens)
    return Decision(
        kind=kind,
        reason=reason,
        rank=highest,
        max_lora_rank=None if kind == "merged" else _rounded(highest),
        embeddings=trained,
        tokenizer_changes=tokenizer_changes(adapter.tokenizer, base.tokenizer),
    )


def _kind(adapter: Adapter, base: Base, trained: Sequence[Embedding]) -> tuple[Kind, str]:
    if refusal := next(_refusals(adapter, base), ""):
        return "merged", refusal
    if any(e.rows for e in trained):
        return "resized", "It holds all rows of an embedding, which vLLM takes from the base only."
    if not trained:
        return "plain", "It holds LoRA matrices only, which vLLM serves as they are."
    if obstacle := _no_embedding_lora(base, trained):
        return "resized", f"It trained single tokens, and {obstacle}: their rows go to the base."
    return "embedding-lora", "It trained single tokens, whose rows are a LoRA of the embedding."


def _refusals(adapter: Adapter, base: Base) -> Iterator[str]:
    """Why vLLM would refuse the adapter whatever is done about embeddings."""
    for key, (refused, what) in rules.REFUSED.items():
        if refused(value := adapter.config.get(key)):
            yield f"{what} ({key}: {value}), which vLLM does not serve as an adapter."
    if (highest := max(ranks(adapter.config))) > rules.RANKS[-1]:
        yield f"Its rank is {highest}, and {rules.RANKS[-1]} is the highest that vLLM takes."
    if set(base.architectures) & rules.WITHOUT_LORA:
        yield f"vLLM serves no adapter of a {_named(base)}."
    parts = [(key, *split(key)) for key in sorted(adapter.tensors)]
    if odd := [key for key, _, part in parts if part not in (*LORA, *ROWS, TOKENS)]:
        yield f"It holds {odd[0]}, which vLLM does not read."
    targets = {module.rpartition(".")[2] for _, module, part in parts if part in LORA}
    if targets & {INPUT, OUTPUT} and not _takes_embedding_lora(base):
        yield f"It has a LoRA of the embedding, which vLLM does not serve for a {_named(base)}."


def _no_embedding_lora(base: Base, trained: Sequence[Embedding]) -> str:
    """Why the rows of single tokens cannot become matrices, or nothing."""
    if not _takes_embedding_lora(base):
        return f"vLLM serves no LoRA of the embedding of a {_named(base)}"
    if (count := max(len(e.indices) for e in trained)) > rules.RANKS[-1]:
        return f"{count} are more than {rules.RANKS[-1]}, the highest rank that vLLM takes"
    return ""


def _takes_embedding_lora(base: Base) -> bool:
    return bool(base.architectures) and set(base.architectures) <= rules.WITH_EMBEDDING_LORA


def _named(base: Base) -> str:
    return base.architectures[0] if base.architectures else "model that names no architecture"


def _rounded(rank: int) -> int:
    return next(allowed for allowed in rules.RANKS if allowed >= rank)


def tokenizer_changes(trained: Tokenizer | None, base: Tokenizer | None) -> tuple[str, ...]:
    """What a trained tokenizer has that the base's has not; nothing where there is none."""
    if trained is None:
        return ()
    before = base or Tokenizer("")
    changed = {
        "vocabulary": trained.vocabulary != before.vocabulary,
        "begin and end": trained.ends != before.ends,
        "chat template": trained.template != before.template,
    }
    return tuple(name for name, differs in changed.items() if differs)
