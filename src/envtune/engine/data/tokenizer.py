"""A run's tokenizer as Axolotl loads it, read once for each set of its files and kept.

Its own file is not what trains: transformers rebuilds normaliser and post-processor while it
loads. transformers takes seconds to import; what it makes of a tokenizer is a text that is kept
by the digest of the tokenizer's files and of the keys that change it.
"""

import dataclasses
import hashlib
import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune import files

_PAD, _LLAMA = "</s>", ("LlamaTokenizer", "CodeLlamaTokenizer")
_NEOX = ("GPTNeoXTokenizerFast", "GPTNeoXTokenizer")
# Keys of the configuration that change what is loaded.
_KEYS = ("special_tokens", "tokens", "tokenizer_legacy", "tokenizer_type")
# And those with which Axolotl loads another kind of tokenizer, or one that it writes first.
UNKNOWN = (
    "tokenizer_use_mistral_common", "added_tokens_overrides", "trust_remote_code", "processor_type",
)  # fmt: skip
_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken")


@dataclass(frozen=True)
class Loaded:
    """A tokenizer as it was loaded. `backend`: what tokenizers.Tokenizer.from_str reads."""

    backend: str
    bos_id: int | None
    eos_id: int | None
    eos: str | None
    special: dict[str, Any]  # for templates: bos_token, eos_token, pad_token...
    chat_template: str | None
    vocab_size: int

    @property
    def sha256(self) -> str:
        """Two tokenizers of one digest make the same ids of the same text."""
        known = f"{self.backend}\n{self.bos_id} {self.eos_id}"
        return hashlib.sha256(known.encode()).hexdigest()


def unknown(config: Mapping[str, Any]) -> str | None:
    """Why Axolotl loads a tokenizer that this module does not, or None."""
    if config.get("tokenizer_use_fast") is False:
        return "tokenizer_use_fast: false"
    return next((f"{key} is set" for key in UNKNOWN if config.get(key)), None)


def load(folder: Path, config: Mapping[str, Any], cache: Path | None = None) -> Loaded | None:
    """The tokenizer in `folder` with the configuration's tokens, or None where it has no fast form.

    `cache`: where what was loaded before is kept. Where torch is not imported yet, it cannot be
    in this process any more afterwards.
    """
    kept = cache and cache / f"{_key(folder, config)}.json"
    if kept and kept.exists():
        import orjson

        return Loaded(**orjson.loads(kept.read_bytes()))
    loaded = _load(folder, config)
    if loaded and kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(kept, dataclasses.asdict(loaded))
    return loaded


def _key(folder: Path, config: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(importlib.metadata.version("transformers").encode())
    digest.update(repr([config.get(key) for key in _KEYS]).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in _SUFFIXES and not path.name.endswith(".index.json"):
            digest.update(path.name.encode() + b"\0" + files.read_bytes(path))
    return digest.hexdigest()


def _load(folder: Path, config: Mapping[str, Any]) -> Loaded | None:
    if "torch" not in sys.modules:  # a third of the time, and not needed for tokenizers
        sys.modules["torch"] = None  # type: ignore[assignment]
    import transformers

    named = getattr(transformers, config.get("tokenizer_type") or "AutoTokenizer")
    legacy = config.get("tokenizer_legacy")
    options = {} if legacy is None else {"legacy": legacy}
    tokenizer = named.from_pretrained(folder, use_fast=True, **options)
    if not tokenizer.is_fast or not isinstance(tokenizer.chat_template, str | None):
        return None
    _add(tokenizer, config)
    return Loaded(
        backend=tokenizer.backend_tokenizer.to_str(),
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        eos=tokenizer.eos_token,
        special=dict(tokenizer.special_tokens_map),
        chat_template=tokenizer.chat_template,
        vocab_size=len(tokenizer),
    )


def _add(tokenizer: Any, config: Mapping[str, Any]) -> None:
    """The configuration's tokens, in the order of axolotl.loaders.tokenizer.load_tokenizer."""
    from transformers import AddedToken

    name = type(tokenizer).__name__
    if name.removesuffix("Fast") in _LLAMA and not tokenizer.pad_token:
        tokenizer.pad_token = _PAD
    if name == _NEOX[0]:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    special = dict(config.get("special_tokens") or {})
    more = special.pop("additional_special_tokens", None)
    as_written = {"rstrip": False, "lstrip": False, "normalized": False}
    for key, value in special.items():
        tokenizer.add_special_tokens({key: AddedToken(value, **as_written)})
    if tokens := config.get("tokens"):
        tokenizer.add_tokens([AddedToken(token, **as_written) for token in tokens])
    if more is not None:
        tokenizer.add_special_tokens({"additional_special_tokens": more})
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
