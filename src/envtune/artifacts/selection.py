"""Which files of a model's repository training reads. Pure.

A repository often holds its weights several times over: as safetensors and as pickles, in
the format of other engines, for other devices. Only what would be loaded is named here.
"""

import re
from collections.abc import Collection, Iterator

from envtune.artifacts import modelfiles

_SMALL = re.compile(
    r"(additional_chat_templates/)?[^/]+\.(json|jinja)"
    r"|[^/]+\.(model|txt|tiktoken|vocab|bpe)|tokenizer\.model[^/]*"
)
_INDEX = ".index.json"
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


def entry(names: Collection[str]) -> str:
    """The file that transformers begins with to load weights, or "" where it has no usual name."""
    return next((name for name in modelfiles.ENTRIES if name in names), "")


def files(
    names: Collection[str], parts: Collection[str], shards: Collection[str], *, code: bool
) -> list[str]:
    """The files of a repository that `parts` of a model need (see `modelfiles`), sorted.

    `shards` are those that the entry names where it is an index; `code`: the repository's
    own Python is run.
    """
    small = {n for n in names if _SMALL.fullmatch(n) and not n.endswith(_INDEX)}
    python = {n for n in names if code and n.endswith(".py")}
    return sorted(small | python | set(_weights(names, parts, shards)))


def _weights(
    names: Collection[str], parts: Collection[str], shards: Collection[str]
) -> Iterator[str]:
    if modelfiles.ADAPTER in parts:
        yield from [name for name in _ADAPTERS if name in names][:1]
    if modelfiles.WEIGHTS not in parts:
        return
    if first := entry(names):
        yield first
        yield from set(shards).intersection(names)
    else:
        yield from (name for name in names if "/" not in name and modelfiles.is_weights(name))
