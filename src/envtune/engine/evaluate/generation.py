"""Answers to prompts: token ids in, token ids out, cut where the model ended its turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, set_seed

# Prompts that are answered at once, and tokens of an answer where nobody says.
_AT_ONCE = 8
_NEW_TOKENS = 256


@dataclass(frozen=True)
class Answer:
    """The answer's own tokens, without the prompt and the end, and whether it came to an end."""

    ids: list[int]
    stopped: bool


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user set, and greedy where no temperature says otherwise."""
    sampled = given.get("do_sample", bool(given.get("temperature")))
    drawn = ("temperature", "top_p", "top_k", "min_p", "typical_p")
    kept = {name: value for name, value in given.items() if sampled or name not in drawn}
    return {"max_new_tokens": _NEW_TOKENS, **kept, "do_sample": sampled}


def ends(tokenizer: Any, model: Any, cfg: Any, stops: Sequence[int] = ()) -> list[int]:
    """The tokens that end a turn: the tokenizer's, the model's own, those of the layout and those
    that were said to be trained."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    trained = tokenizer.convert_tokens_to_ids(list(cfg.eot_tokens or ()))
    return sorted(
        {id_ for id_ in (tokenizer.eos_token_id, *own, *trained, *stops) if id_ is not None}
    )


def configured(
    settings: Mapping[str, Any], tokenizer: Any, model: Any, cfg: Any, stops: Sequence[int] = ()
) -> GenerationConfig:
    """How a model answers by `settings`, up to the end of its turn; `stops` as in `ends`."""
    stop, pad = ends(tokenizer, model, cfg, stops), tokenizer.pad_token_id
    return GenerationConfig(
        **settings, eos_token_id=stop, pad_token_id=stop[0] if pad is None else pad
    )


def context(model: Any) -> int | None:
    """The longest sequence in tokens that the model takes, where it says so."""
    return getattr(model.config, "max_position_embeddings", None)


def answer(
    model: Any,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    seed: int,
    shown: Callable[[int], None] = lambda done: None,
    **how: Any,
) -> list[Answer]:
    """An answer to each prompt; with the same seed the same one.

    `shown` hears how many prompts are answered; `how` is what else transformers' generate is told.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), _AT_ONCE):
        chosen = order[start : start + _AT_ONCE]
        set_seed(seed)
        batch = _batch(model, [prompts[i] for i in chosen], config, how)
        found |= zip(chosen, batch, strict=True)
        shown(len(found))
    return [found[index] for index in range(len(prompts))]


def _batch(
    model: Any, prompts: Sequence[Sequence[int]], config: GenerationConfig, how: Mapping[str, Any]
) -> list[Answer]:
    """Padded on the left, so that every answer begins at the same place."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), config.pad_token_id)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for number, prompt in enumerate(prompts):
        ids[number, longest - len(prompt) :] = torch.tensor(prompt)
        mask[number, longest - len(prompt) :] = 1
    with torch.inference_mode():
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            **how,
        )
    return [_cut(row, config.eos_token_id) for row in made[:, longest:].tolist()]


def _cut(ids: list[int], ends: Sequence[int]) -> Answer:
    end = next((i for i, id_ in enumerate(ids) if id_ in ends), None)
    return Answer(ids if end is None else ids[:end], end is not None)
