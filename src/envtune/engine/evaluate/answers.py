"""What a trained model answers as it was trained: python -m ...evaluate.answers ORDER.json

The order names the `base` folder and the `adapter` on it, or a `base` alone where a whole
model was trained; the `run` folder; `device` (cpu or cuda), `dtype`, how many `prompts`
and how many `tokens` to each; and the file `answers` to write: a list of prompt, tokens,
the logarithms of their probabilities, and those that the base alone gives the same tokens.
"""

import contextlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import adapterfiles, modelfiles
from envtune.artifacts.adapters import INPUT, OUTPUT, ROWS, split
from envtune.engine.export import fourbit
from envtune.runs import prepared

# Of a prompt, tokens: enough for a template and a question, and cheap on a CPU.
_LONGEST = 192
_SEED = 7


def answers(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Greedy answers to prompts from the run's own data. Prints one line an answer."""
    model = _load(order)
    found = []
    for number, prompt in enumerate(_prompts(order, model), 1):
        found.append(_answer(model, prompt, order["tokens"]))
        print(f"answers: {number} of {order['prompts']}", flush=True)
    return found


def _load(order: dict[str, Any]) -> Any:
    """transformers' model, with PEFT's adapter where there is one."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    told = {"dtype": getattr(torch, order["dtype"])}
    if order["device"] == "cuda":
        told["device_map"] = "auto"
    model = AutoModelForCausalLM.from_pretrained(order["base"], **told)
    fourbit.keep_exact(model, told["dtype"])
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)  # and no end
    if adapter := order.get("adapter"):
        if (rows := _rows(Path(adapter))) not in (
            None,
            model.get_input_embeddings().weight.shape[0],
        ):
            model.resize_token_embeddings(rows, mean_resizing=False)
        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def _rows(adapter: Path) -> int | None:
    """How many rows the embedding had in training, where the adapter brings them all."""
    tensors = adapterfiles.adapter(adapter).tensors
    for name, entry in tensors.items():
        module, part = split(name)
        if module.rpartition(".")[2] in (INPUT, OUTPUT) and part in ROWS:
            return int(entry["shape"][0])
    return None


def _prompts(order: dict[str, Any], model: Any) -> Iterator[list[int]]:
    """Questions of the data, evenly spread over it; the last two end with trained tokens."""
    dice, size = random.Random(_SEED), model.get_input_embeddings().weight.shape[0]
    rows = list(_questions(Path(order["run"]), order["prompts"]))
    while len(rows) < order["prompts"]:  # data that is streamed leaves no rows
        rows.append([dice.randrange(size) for _ in range(dice.randint(8, 32))])
    watched = _watched(order, size)
    for number, row in enumerate(rows):
        more = dice.choices(watched, k=2) if watched and number >= len(rows) - 2 else []
        yield [*row[-_LONGEST:], *more]


def _questions(run_dir: Path, count: int) -> Iterator[list[int]]:
    """What stands before the first trained token of a row, or its first half."""
    from datasets import load_from_disk

    if (folder := prepared.trained(run_dir)) is not None:
        rows = load_from_disk(str(folder))
        for index in range(0, len(rows), max(1, len(rows) // count)):
            row = rows[index]
            ids, labels = row["input_ids"], row.get("labels") or row["input_ids"]
            begin = next((i for i, label in enumerate(labels) if label != -100), 0)
            if prompt := ids[: begin or max(1, len(ids) // 2)]:
                yield list(prompt)
                count -= 1
            if not count:
                return


def _watched(order: dict[str, Any], size: int) -> list[int]:
    """The tokens whose rows were trained by themselves, or added."""
    if not order.get("adapter"):
        return []
    given = modelfiles.read_json(Path(order["adapter"]) / adapterfiles.CONFIG)
    single = given.get("trainable_token_indices") or []
    chosen = [i for ids in single.values() for i in ids] if isinstance(single, dict) else single
    config = modelfiles.read_json(Path(order["base"]) / "config.json")
    before = (config.get("text_config") or config).get("vocab_size", size)
    return sorted({*chosen, *range(before, size)})


def _answer(model: Any, prompt: list[int], count: int) -> dict[str, Any]:
    """Greedy, also past an end of text: a token more is a token compared."""
    import torch

    given = torch.tensor([prompt], device=model.device)
    with torch.no_grad():
        made = model.generate(
            inputs=given, attention_mask=torch.ones_like(given), max_new_tokens=count
        )
    tokens = made[0, len(prompt) :].tolist()
    plain = (
        model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext()
    )
    found = {"prompt": prompt, "tokens": tokens, "logprobs": _logprobs(model, made, len(prompt))}
    with plain:
        return {**found, "base": _logprobs(model, made, len(prompt))}


def _logprobs(model: Any, ids: Any, start: int) -> list[float]:
    """The logarithm of the probability of each token from `start` on."""
    import torch

    with torch.no_grad():
        logits = model(ids).logits[0, start - 1 : -1].float()
    chosen = ids[0, start:, None].to(logits.device)
    found: list[float] = logits.log_softmax(-1).gather(1, chosen)[:, 0].tolist()
    return found


def main() -> int:
    order = modelfiles.read_json(Path(sys.argv[1]))
    files.write_json(Path(order["answers"]), answers(order))
    return 0


if __name__ == "__main__":
    sys.exit(main())
