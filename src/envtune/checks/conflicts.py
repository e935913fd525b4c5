"""Settings that exclude or need each other, told by the user's settings alone.

What is here is common, and either passes Axolotl's validation and fails or misleads later,
or is refused there only after torch is imported. The rest is for `check --deep`.
"""

from collections.abc import Iterator
from typing import Any

from envtune.errors import Problem
from envtune.resolve import batch as batches
from envtune.resolve import packing, parallel
from envtune.resolve.config import Facts
from envtune.resolve.data import EVALUATES, STREAMS
from envtune.settings.spelling.nearest import nearest
from envtune.settings.typed import Settings

_ONE_OF = (
    ("bf16", "fp16"),
    ("load_in_4bit", "load_in_8bit"),
    ("deepspeed", "fsdp"),
    ("deepspeed", "fsdp_config"),
    ("warmup_steps", "warmup_ratio"),
    ("gradient_accumulation_steps", "batch_size"),
    ("saves_per_epoch", "save_steps"),
    ("evals_per_epoch", "eval_steps"),
    ("val_set_size", "test_datasets"),
    ("max_memory", "gpu_memory_limit"),
    ("cut_cross_entropy", "chunked_cross_entropy"),
    ("cut_cross_entropy", "liger_cross_entropy"),
    ("cut_cross_entropy", "liger_fused_linear_cross_entropy"),
    ("liger_cross_entropy", "liger_fused_linear_cross_entropy"),
)
# A key, the value that needs something (None: any that is on), and the keys of which one is
# needed.
_NEEDS = (
    ("chat_template", "jinja", ("chat_template_jinja",)),
    ("peft_layers_pattern", None, ("peft_layers_to_transform",)),
    ("push_dataset_to_hub", None, ("hf_use_auth_token",)),
    ("do_bench_eval", None, ("eval_steps", "evals_per_epoch")),
    ("dpo_loss_type", None, ("rl",)),
    ("dpo_loss_weights", None, ("rl",)),
)
_BY_EPOCH = "evals_per_epoch"
_QUANTISED = ("load_in_4bit", "load_in_8bit")
_ADAPTERS = ("lora", "qlora", "llama-adapter")
_CPU_ATTENTION = ("eager", "sdpa", None)
_GPU_ONLY = (
    "fp8", "tf32", "deepspeed", "fsdp", "fsdp_config", "lora_mlp_kernel", "lora_qkv_kernel",
    "lora_o_kernel", "lora_embedding_kernel", "cut_cross_entropy", "liger_",
)  # fmt: skip


def problems(settings: Settings) -> Iterator[Problem]:
    """Every contradiction within the settings."""
    given = _Given(settings)
    for one, other in _ONE_OF:
        # bf16: auto gives way to fp16.
        if given.on(one) and given.on(other) and "auto" not in (given[one], given[other]):
            what = f"is set and so is {given.name(one)}; choose one of the two"
            yield Problem(given.name(other), what)
    for key, value, needed in _NEEDS:
        asks = given.on(key) if value is None else given[key] == value
        if asks and not any(map(given.on, needed)):
            yield Problem(given.name(key), f"needs {' or '.join(map(given.name, needed))}, not set")
    yield from _adapter(given, tuned=not settings.passes_through)
    yield from _evaluation(given)
    yield from _saving(given)
    yield from _streaming(given)
    yield from _packing(given)
    if not settings.get("SFT_RESUME_FORCE"):
        yield from _resuming(given)


def on_cpu(settings: Settings) -> Iterator[Problem]:
    """What needs a GPU."""
    given = _Given(settings)
    for key in ("bf16", "fp16"):
        if given.on(key):
            what = f"{given[key]!r} needs a GPU; training on the CPU is fp32: unset it"
            yield Problem(given.name(key), what)
    if given["attn_implementation"] not in _CPU_ATTENTION:
        what = f"{given['attn_implementation']} needs a GPU; unset it, or choose sdpa or eager"
        yield Problem(given.name("attn_implementation"), what)
    for key in settings.axolotl:
        if key.startswith(_GPU_ONLY) and given.on(key) and given[key] != "auto":
            yield Problem(given.name(key), "needs a GPU; unset it to train on the CPU")


def batch(settings: Settings, facts: Facts) -> Iterator[str]:
    """A batch_size that micro batches on every process cannot make up: Axolotl rounds."""
    given, processes = _Given(settings), facts.parallel.world
    size, micro = (
        given["batch_size"],
        given["micro_batch_size"] or batches.micro(given["batch_size"], processes),
    )
    if size and size < processes and parallel.may_spare(facts):
        return  # so many ranks train as have a sequence
    if size and size % (micro * processes):
        made = max(1, size // (micro * processes)) * micro * processes
        what = f"{size} is no multiple of {micro} micro x {processes} world; a step takes {made}"
        yield f"{given.name('batch_size')}: {what}"


def generations(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """A step of GRPO that does not hold one group of answers for each process."""
    given, world = _Given(settings), facts.parallel.world
    group = (given["trl"] or {}).get("num_generations")
    micro, steps = given["micro_batch_size"] or 1, given["gradient_accumulation_steps"] or 1
    if given["rl"] == "grpo" and world > 1 and group and micro * steps < group * world:
        name, least = given.name("gradient_accumulation_steps"), -(-group * world // micro)
        what = f"{micro} micro x {steps} accumulation are fewer than {group} generations x {world}"
        yield Problem(name, f"{what} processes, which GRPO needs; set it to {least} or more")


def idle(settings: Settings, facts: Facts) -> Iterator[str]:
    """What is taken and does nothing, or nobody has judged."""
    given = _Given(settings)
    if given.on(_BY_EPOCH) and given.off("val_set_size") and not given.on("test_datasets"):
        yield f"{given.name(_BY_EPOCH)}: no rows are held back, so nothing is evaluated"
    if given["adapter"] == "lora" and given.on("load_in_4bit"):
        what = f"does nothing with lora in Axolotl; {given.name('adapter')}=qlora quantises"
        yield f"{given.name('load_in_4bit')}: {what}"
    attention = str(given["attn_implementation"])
    known = attention.split(":", maxsplit=1)[0].split("@", maxsplit=1)[0] in packing.isolating()
    if given.on("sample_packing") and "/" in attention and not known:
        what = f"whether {attention} keeps packed rows apart is not known"
        yield f"{given.name('attn_implementation')}: {what}"


class _Given:
    """The settings as a rule asks for them: None for what is not set."""

    def __init__(self, settings: Settings) -> None:
        self.axolotl = settings.axolotl

    def __getitem__(self, key: str) -> Any:
        return self.axolotl[key].value if key in self.axolotl else None

    def __contains__(self, key: str) -> bool:
        return key in self.axolotl

    def on(self, key: str) -> bool:
        return bool(self[key])

    def off(self, key: str) -> bool:
        """Whether the user turned it off; what is not set is neither on nor off."""
        return key in self and not self[key]

    def name(self, key: str) -> str:
        return self.axolotl[key].name if key in self else f"AXOLOTL_{key.upper()}"


def _adapter(given: _Given, *, tuned: bool) -> Iterator[Problem]:
    quantised = [key for key in _QUANTISED if given.on(key)]
    adapter = given["adapter"]
    if adapter and not (adapter in _ADAPTERS or adapter in given or given.on("plugins")):
        hint = nearest(adapter, _ADAPTERS)
        what = f"{adapter!r} is no adapter of Axolotl's; allowed: {', '.join(_ADAPTERS)} or null"
        yield Problem(given.name("adapter"), what + (f"; did you mean {hint}?" if hint else ""))
    if quantised and not adapter and (given.off("adapter") or not tuned):
        wanted = "qlora" if quantised[0] == "load_in_4bit" else "lora"
        what = f"freezes the weights, and without an adapter nothing is left to train; set {wanted}"
        yield Problem(given.name(quantised[0]), f"{what} as {given.name('adapter')}")
    if adapter == "qlora":
        yield from _qlora(given)
    if adapter in ("lora", "qlora") or (tuned and "adapter" not in given):
        for key in ("lora_r", "lora_alpha"):
            if given.off(key):
                yield Problem(
                    given.name(key), "is null and an adapter needs it; unset it or set 16"
                )


def _qlora(given: _Given) -> Iterator[Problem]:
    adapter = given.name("adapter")
    if given.off("load_in_4bit"):
        what = f"is off and {adapter} is qlora, which is 4-bit; unset it or choose lora"
        yield Problem(given.name("load_in_4bit"), what)
    for key in ("load_in_8bit", "gptq"):
        if given.on(key):
            yield Problem(given.name(key), f"excludes qlora, which is 4-bit; set {adapter}=lora")


def _evaluation(given: _Given) -> Iterator[Problem]:
    # Axolotl lets evaluations be asked for without rows if they are counted by epoch.
    asking = [key for key in EVALUATES if key != _BY_EPOCH]
    wanting = [key for key in asking if given.on(key) and given[key] != "no"]
    streams = any(given.on(key) for key in STREAMS)
    if wanting and (given.off("val_set_size") or streams) and not given.on("test_datasets"):
        ways = "AXOLOTL_TEST_DATASETS" if streams else "AXOLOTL_VAL_SET_SIZE=0.05"
        yield Problem(given.name(wanting[0]), f"has no rows to evaluate on; set {ways}")
    strategy = given["eval_strategy"]
    for key in ("eval_steps", "evals_per_epoch"):
        if strategy and strategy != "steps" and given.on(key):
            what = f"is set and {given.name('eval_strategy')} is {strategy}; set it to steps"
            yield Problem(given.name(key), what)
    saves, evals = given["save_steps"], given["eval_steps"]
    if given.on("early_stopping_patience") and not (saves and evals and saves % evals == 0):
        what = "needs AXOLOTL_SAVE_STEPS and AXOLOTL_EVAL_STEPS, the first a multiple of the second"
        yield Problem(given.name("early_stopping_patience"), what)


def _saving(given: _Given) -> Iterator[Problem]:
    strategy = given["save_strategy"]
    if strategy and strategy != "steps" and given.on("save_steps"):
        what = f"is set and {given.name('save_strategy')} is {strategy}; set it to steps"
        yield Problem(given.name("save_steps"), what)
    if strategy == "best" and not given.on("metric_for_best_model"):
        what = "is best; say by which metric: AXOLOTL_METRIC_FOR_BEST_MODEL=eval_loss"
        yield Problem(given.name("save_strategy"), what)


def _streaming(given: _Given) -> Iterator[Problem]:
    for key in STREAMS:
        if given.on(key) and not given.on("max_steps"):
            what = "does not tell how many rows there are; set AXOLOTL_MAX_STEPS"
            yield Problem(given.name(key), what)
        if given.on(key) and given.on("val_set_size"):
            what = f"cannot split streamed rows ({given.name(key)}); set AXOLOTL_TEST_DATASETS"
            yield Problem(given.name("val_set_size"), what)


def _packing(given: _Given) -> Iterator[Problem]:
    if not given.on("sample_packing"):
        return
    if given.on("rl"):
        yield Problem(given.name("sample_packing"), "packs no rows of RL; unset it")
    attention = given["attn_implementation"]
    isolating = packing.isolating()
    # A kernel of the Hub may name a revision or a function: owner/name@v1:function.
    base = str(attention).split(":", maxsplit=1)[0].split("@", maxsplit=1)[0]
    # A kernel of the Hub that nobody has judged is told, not refused.
    if "attn_implementation" in given and base not in isolating and "/" not in base:
        what = f"is {attention}, which lets packed rows see each other; choose one of "
        yield Problem(given.name("attn_implementation"), what + ", ".join(isolating))


def _resuming(given: _Given) -> Iterator[Problem]:
    """What would have a resumed run see other batches than one never stopped."""
    forced = "or set SFT_RESUME_FORCE=true to take that"
    if given.on("auto_find_batch_size"):
        what = "changes the batch while it trains, and a resumed run would see other ones"
        fix = f"unset it and set {given.name('micro_batch_size')}, {forced}"
        yield Problem(given.name("auto_find_batch_size"), f"{what}; {fix}")
    streams = next((key for key in STREAMS if given.on(key)), None)
    if given.on("sample_packing") and streams:
        what = f"packs a stream ({given.name(streams)}), and a resumed run would see other rows"
        yield Problem(given.name("sample_packing"), f"{what}; unset one of the two, {forced}")
