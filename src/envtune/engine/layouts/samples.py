"""Rows of the run's own data as requests, with the ids that training made of each.

They prove what is served: a server that lays such a request out has to make the row's own
ids of it. Rows that a layout may stumble over come first.
"""

import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from envtune.engine.layouts.found import Found, Request
from envtune.engine.tokens import never_cut

LOG = logging.getLogger(__name__)
# How many rows prove a layout, how many are looked at for those, and the longest in tokens.
ROWS, _SEEN, _LONGEST = 50, 1000, 4096
_IGNORED = -100


# What a row or a file that was not meant for Axolotl makes of its code.
_UNREADABLE = (AttributeError, IndexError, KeyError, LookupError, OSError, TypeError, ValueError)


def load(dataset: Any, cfg: Any) -> Any:
    """The rows of a data set as Axolotl loads them: from its cache, since it has just done so.
    None where it was read by another reader than its own; then there is nothing to prove with."""
    from axolotl.utils.data.shared import load_dataset_with_config
    from datasets.exceptions import DatasetsError

    streaming = bool(cfg.streaming or cfg.pretraining_dataset)
    try:
        loaded = load_dataset_with_config(dataset, cfg.hf_use_auth_token, streaming=streaming)
    except (*_UNREADABLE, DatasetsError) as error:
        LOG.warning("no chat is proved: %s is not read again: %s", dataset.path, error)
        return None
    if not isinstance(loaded, Mapping):
        return loaded
    return loaded[dataset.split if dataset.split in loaded else "train"]


def askable(found: Found, rows: Any) -> bool:
    """Whether any row that is looked at can be asked for as a chat; yes where there are none, or
    where Axolotl's own chats are, which the template judges."""
    if found.strategy is None or hasattr(found.strategy.prompter, "chat_template"):
        return True
    seen = [row for _, row in _seen(rows, random.Random(0))[:ROWS]]
    return not seen or any(_asked(found, row) is not None for row in seen)


def _asked(found: Found, row: Mapping[str, Any]) -> tuple[Request, Mapping[str, Any]] | None:
    """A row as a request, and as tokens. One that cannot be read was not trained either: it is no
    proof, and who reads the rows has told of it."""
    try:
        asked = found.ask(row)
        return (asked, found.strategy.tokenize_prompt(row)) if asked else None
    except _UNREADABLE:
        return None


def requests(found: Found, rows: Any, tokenizer: Any, cfg: Any) -> list[dict[str, Any]]:
    """Requests for rows, each with the row's `ids`, where its answers begin, and whether one of
    its labels ends an answer."""
    dice = random.Random(cfg.seed or 0)
    made = (
        _request(found, n, row, tokenizer, cfg) for n, row in _ordered(_seen(rows, dice), tokenizer)
    )
    return list(islice((request for request in made if request), ROWS))


def _seen(rows: Any, dice: random.Random) -> list[tuple[int, Mapping[str, Any]]]:
    """Rows by their number: some of all, or the first of those that come one by one."""
    if not hasattr(rows, "__len__"):
        return list(enumerate(rows.take(_SEEN)))
    chosen = sorted(dice.sample(range(len(rows)), min(len(rows), _SEEN)))
    found = list(zip(chosen, rows.select(chosen), strict=True))
    dice.shuffle(found)
    return found


def _ordered(
    rows: Iterable[tuple[int, Mapping[str, Any]]], tokenizer: Any
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Of each kind that is hard a few, then the others."""
    words, kinds, rest = tuple(never_cut(tokenizer)), dict[str, int](), []
    for number, row in rows:
        new = [kind for kind in _kinds(row, words) if kinds.get(kind, 0) < ROWS // 12]
        kinds |= {kind: kinds.get(kind, 0) + 1 for kind in new}
        if new:
            yield number, row
        else:
            rest.append((number, row))
    yield from rest


def _kinds(row: Mapping[str, Any], words: tuple[str, ...]) -> Iterator[str]:
    """What is hard about a row's texts."""
    texts = list(_texts(row))
    whole = "\n".join(texts)
    told = {
        "a template": "{{" in whole or "{%" in whole,
        "a return": "\r" in whole,
        "a token": any(word in whole for word in words),
        "space around": any(text != text.strip() for text in texts),
        "nothing": not all(texts),
        "other letters": not whole.isascii(),
        "a digit first": any(text[:1].isdigit() for text in texts),
        "a mark": "###" in whole or "<|" in whole,
    }
    yield from (kind for kind, holds in told.items() if holds)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is None or isinstance(value, str):
        yield value or ""


def _request(
    found: Found, number: int, row: Mapping[str, Any], tokenizer: Any, cfg: Any
) -> dict[str, Any] | None:
    if (made := _asked(found, row)) is None:
        return None
    (messages, more), encoded = made
    ids, labels = encoded["input_ids"], encoded["labels"]
    if not _LONGEST > len(ids) < (cfg.sequence_len or _LONGEST):
        return None
    starts = [i for i in range(len(ids)) if _begins(labels, i)]
    told = {"chat_template_kwargs": more} if more else {}
    ends = any(label in found.layout.stops for label in labels)
    near = [place for start in starts for place in _spaces(ids, start, tokenizer)]
    answered = {"ids": ids, "starts": starts, "near": near, "ends": ends}
    return {"row": number, "messages": messages, **told, **answered} if starts else None


def _begins(labels: list[int], at: int) -> bool:
    return labels[at] != _IGNORED and (at == 0 or labels[at - 1] == _IGNORED)


def _spaces(ids: list[int], start: int, tokenizer: Any) -> Iterator[int]:
    """Where a prompt may end too: a space that a template writes before an answer is mostly of the
    answer's first token, and where it is not, no prompt can end behind it for all answers."""
    while start > 0 and not tokenizer.decode([ids[start - 1]]).strip(" "):
        start -= 1
        yield start
