"""The embedded default: a tiny Llama, its tokenizer and an instruction set, made here.

Nothing is downloaded and nothing is random between two machines: the rows come from
tables, the tokenizer is trained on them, the weights are drawn on the CPU from one seed.
It is for demos and tests; it knows nothing until it is trained.

    python -m envtune.engine.embedded FOLDER
"""

import json
import logging
import sys
from pathlib import Path

SEED = 20260101
VOCABULARY = 512
END, BEGIN, PAD = "<|end|>", "<|begin|>", "<|pad|>"

# ChatML-like; `generation` marks what the assistant says, for templates that mask by it.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

_CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Kenya": "Nairobi",
    "Peru": "Lima", "Norway": "Oslo", "Egypt": "Cairo", "Cuba": "Havana", "Ghana": "Accra",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "old": "new", "open": "closed",
    "early": "late", "full": "empty", "loud": "quiet", "high": "low", "wet": "dry",
}  # fmt: skip
_COLOURS = {
    "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "blood": "red",
    "the sky": "blue", "a carrot": "orange", "chocolate": "brown",
}  # fmt: skip


def rows() -> list[dict[str, list[dict[str, str]]]]:
    """Some three hundred short conversations in the `messages` form."""
    both_ways = {**_OPPOSITES, **{b: a for a, b in _OPPOSITES.items()}}
    pairs = [
        *(
            (f"What is the capital of {c}?", f"The capital of {c} is {t}.")
            for c, t in _CAPITALS.items()
        ),
        *(
            (f"Name the opposite of {a}.", f"The opposite of {a} is {b}.")
            for a, b in both_ways.items()
        ),
        *((f"What colour is {t}?", f"{t.capitalize()} is {c}.") for t, c in _COLOURS.items()),
        *((f"Add {a} and {b}.", f"{a} plus {b} is {a + b}.") for a in range(12) for b in range(12)),
        *((f"Count to {n}.", ", ".join(map(str, range(1, n + 1))) + ".") for n in range(2, 21)),
        *((f"Which number comes after {n}?", f"After {n} comes {n + 1}.") for n in range(100)),
    ]
    return [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in pairs
    ]


def make_data(path: Path) -> None:
    """Writes the instruction set as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))


def make_tokenizer(folder: Path) -> None:
    """A byte-level BPE trained on the rows, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BEGIN, END, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [message["content"] for row in rows() for message in row["messages"]]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD,
        model_max_length=512,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def make_model(folder: Path, *, vocabulary: int = VOCABULARY) -> None:
    """Random weights of a Llama: hidden 128, 4 heads of 32, 2 key-value heads, 4 layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden = 128
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        # 1/sqrt(hidden): with the usual 0.02 so narrow a model cannot tell tokens apart
        # and an adapter has nothing to steer.
        initializer_range=hidden**-0.5,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).save_pretrained(folder)


def make(folder: Path) -> None:
    """Everything, into `folder/tiny-llama` and `folder/instructions.jsonl`."""
    model = folder / "tiny-llama"
    model.mkdir(parents=True, exist_ok=True)
    make_tokenizer(model)
    make_model(model)
    make_data(folder / "instructions.jsonl")  # last: make takes it for the whole


def main() -> None:
    from transformers.utils import logging as transformers_logging

    # torchao warns at import about every kernel that a CPU cannot load.
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    make(folder)
    print(f"made the embedded model and its {len(rows())} rows in {folder}")


if __name__ == "__main__":
    main()
