"""A model's shape, from its config.json: what memory and time are computed of. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# Models of one stack of attention and gated MLP, for which the formulas were derived; of others a
# config.json has the same names and the layers have more parts.
_MANY_NORMS = ("gemma2", "gemma3", "gemma3_text", "olmo2", "olmo3")
# Attention that normalises its queries and keys.
_QK_NORM = ("qwen3", "qwen3_moe", "gemma3", "gemma3_text", "olmo2", "olmo3")
_BIASED = ("qwen2",)
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Shape:
    """A transformer with gated MLPs, dense or of experts. Sizes in elements.

    `attention` is heads x head_dim and `kv` the same of keys and values; `ffn` is one MLP's inner
    size, of `experts` of which `active` see a token (0 and 0 where there are none). `extra` are
    parameters that no term below explains: they are weights that lie there.
    """

    kind: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    experts: int = 0
    active: int = 0
    extra: int = 0

    @property
    def attention(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def norms(self) -> int:
        """Norms of a layer."""
        return 4 if self.kind in _MANY_NORMS else 2

    @property
    def qk_norm(self) -> bool:
        return self.kind in _QK_NORM

    @property
    def projections(self) -> int:
        """Parameters of the attention's four linears in all layers."""
        return self.layers * (2 * self.hidden * self.attention + 2 * self.hidden * self.kv)

    @property
    def mlp(self) -> int:
        """Parameters of one gated MLP, or of one expert, in all layers."""
        return self.layers * 3 * self.hidden * self.ffn

    @property
    def linear(self) -> int:
        """Parameters of all linears but the head, experts included."""
        router = self.layers * self.hidden * self.experts
        return self.projections + self.mlp * max(1, self.experts) + router

    @property
    def touched(self) -> int:
        """Parameters of the linears that one token goes through, the head left out."""
        return self.projections + self.mlp * (self.active or 1)

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding, and of the head where it is another matrix."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def small(self) -> int:
        """Parameters of norms and biases."""
        biases = self.attention + 2 * self.kv if self.kind in _BIASED else 0
        own = 2 * self.head_dim if self.qk_norm else 0
        return self.layers * (self.norms * self.hidden + biases + own) + self.hidden

    @property
    def parameters(self) -> int:
        return self.linear + self.embeddings + self.small + self.extra

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA on all linears; the experts of a mixture are none (they are
        parameters of three dimensions, which `lora_target_linear` does not reach)."""
        h, a, k = self.hidden, self.attention, self.kv
        mlp = 0 if self.experts else 3 * (h + self.ffn)
        return rank * self.layers * ((h + a) + 2 * (h + k) + (a + h) + mlp)


def of(config: Mapping[str, Any], parameters: int | None = None) -> Shape | None:
    """The shape of a config.json, or None where it does not tell one. `parameters` is what the
    weights' files hold, where that is known."""
    told = config.get("text_config") if isinstance(config.get("text_config"), Mapping) else None
    source: Mapping[str, Any] = {**config, **(told or {})}
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    if not all(_is_size(source.get(name)) for name in sizes) or not _ffn(source):
        return None
    made = _made(source)
    known = parameters or 0
    return made if known <= made.parameters else _with_extra(made, known)


def _made(source: Mapping[str, Any]) -> Shape:
    hidden, heads = source["hidden_size"], source["num_attention_heads"]
    experts = next((source[name] for name in _EXPERTS if _is_size(source.get(name))), 0)
    return Shape(
        kind=str(source.get("model_type", "")),
        hidden=hidden,
        layers=source["num_hidden_layers"],
        heads=heads,
        kv_heads=_size(source, "num_key_value_heads", heads),
        head_dim=_size(source, "head_dim", hidden // heads),
        ffn=_ffn(source),
        vocab=source["vocab_size"],
        tied=bool(source.get("tie_word_embeddings", False)),
        experts=experts,
        active=_size(source, "num_experts_per_tok", 1) if experts else 0,
    )


def _with_extra(shape: Shape, parameters: int) -> Shape:
    return replace(shape, extra=parameters - shape.parameters)


def _ffn(source: Mapping[str, Any]) -> int:
    return _size(source, "moe_intermediate_size", _size(source, "intermediate_size", 0))


def _size(source: Mapping[str, Any], name: str, other: int) -> int:
    value = source.get(name)
    return value if _is_size(value) and isinstance(value, int) else other


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
