"""The stage that proves that vLLM answers as the trained model does.

The same prompts are answered by transformers and PEFT, as it was trained, and by a real
server of what would be served. On a CPU in float32 the tokens have to be equal; where
rounding differs, the server has to give the trained model's tokens nearly its probabilities.
Rows of the run are asked for as chats, whose prompts have to be their training's tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx

from envtune import files
from envtune.artifacts import layouts, weights
from envtune.errors import Exit, Refused
from envtune.machine import ports
from envtune.runs.contents import SERVING
from envtune.serve import conversations, models, server, vllm_config
from envtune.serve.api import reason
from envtune.serve.conversations import Proof
from envtune.serve.models import Served
from envtune.serve.server import Server
from envtune.settings.own import SERVE_FLAG, SERVE_FLAGS
from envtune.supervise import worker
from envtune.supervise.stage import LOG, Context, StageRecord
from envtune.transfer import hubcache

PROMPTS, TOKENS = 7, 48
# Of logarithms of probabilities: the largest difference in float32, where 1e-5 is usual, and
# the mean one where 16 bits are rounded at other places.
EXACT, MEAN = 1e-3, 0.1
Told = tuple[list[int], list[float]]
# What stands for a difference that is not finite, which JSON cannot hold.
_ENDLESS = 1e9
_UNPROVED = ("processor_type", "reward_model", "process_reward_model")


@dataclass(frozen=True)
class Compared:
    """What a server made of one answer: where it left it, and the differences of logprobs."""

    equal: int
    differences: list[float]
    base: list[float]


def prove(context: Context) -> StageRecord | None:
    """Proves what would be served, unless that is not asked for or cannot be."""
    asked = context.config.setting("SFT_PARITY")
    if asked == "off":
        return None
    if asked == "layout":
        return _laid_out(context)
    if obstacle := _obstacle(context):
        if asked == "require":
            return worker.failed("parity", Exit.CONFIG, obstacle)
        LOG.info("parity: not proved: %s", obstacle)
        return _laid_out(context) if server.python(context) and _has_result(context) else None
    try:
        what = models.find(context, as_trained=True)
    except Refused as refused:
        return worker.failed("parity", refused.exit, str(refused))
    order = _order(context, what)
    if failed := worker.carry_out(context, "parity", "answers", order):
        return failed
    trained = files.read_json(Path(order["answers"]))
    exact = _exact(context, what)
    rows = _rows(context, what)
    with server.running(context, what, _flags(context), "parity") as running:
        try:
            compared = [_compare(running, answer, exact=exact) for answer in trained]
            proof = conversations.prove(running.api, running.what.tuned, rows)
        except httpx.HTTPError as error:
            return worker.failed("parity", Exit.ARTIFACT, f"the server failed: {reason(error)}")
    return _with_layout(_judged(compared, exact=exact), proof)


def _has_result(context: Context) -> bool:
    folder = context.run.folder
    return not (folder / "adapter").is_dir() or (folder / SERVING).is_dir()


def _laid_out(context: Context) -> StageRecord | None:
    """Proves the layout by vLLM's renderer alone, which needs neither a server nor its device."""
    python = server.python(context)
    if python is None:
        return worker.failed("parity", Exit.CONFIG, server.no_vllm(context))
    try:
        what = models.find(context, as_trained=True)
    except Refused as refused:
        return worker.failed("parity", refused.exit, str(refused))
    if not (rows := _rows(context, what)):
        return None
    flags = {"model": what.model, "tokenizer": what.tokenizer, "chat-template": what.chat_template}
    told = {name: str(path) for name, path in flags.items() if path is not None}
    answers = context.run.log("parity").with_name("prompts.json")
    order = {"flags": told, "rows": rows, "answers": answers}
    if failed := worker.carry_out(context, "parity", "render", order, str(python)):
        return failed
    proof = conversations.judge(zip(rows, files.read_json(answers), strict=True))
    return _with_layout({"outcome": "done", "checks": []}, proof)


def _rows(context: Context, what: Served) -> list[dict[str, Any]]:
    """The rows that are asked for as chats, of those that the server has room for."""
    flags = context.config.setting(SERVE_FLAGS) or {}
    if own := next(iter(conversations.OWN & flags.keys()), None):
        LOG.info("parity: %s%s is the user's: no layout is proved", SERVE_FLAG, own.upper())
        return []
    told = layouts.read(context.run.folder)
    if told is None or told.reason:
        LOG.info("parity: no chat is proved: %s", told.reason if told else "it has no layout")
        return []
    room = flags.get("max_model_len") or vllm_config.longest(what)
    rows = layouts.proof(context.run.folder)
    return [r for r in rows if not room or len(r["ids"]) + conversations.ANSWER < room]


def _with_layout(judged: StageRecord, proof: Proof) -> StageRecord:
    """The record with what the chats have come to."""
    if judged["outcome"] != "done" or (not proof.rows and not proof.wrong):
        return judged
    told = judged | {"chats": proof.rows, "answers_ended": proof.ended}
    if proof.wrong:
        text = f"a chat is laid out otherwise than it was trained: {proof.wrong}"
        return told | worker.failed("parity", Exit.ARTIFACT, text)
    if proof.answered and not proof.ended:
        LOG.warning("parity: no answer ended by itself; it may need more steps to learn that")
    LOG.info("parity: %s", proof.line)
    return told | {"checks": [*judged["checks"], f"served as trained: {proof.line}"]}


def _obstacle(context: Context) -> str:
    """Why nothing can be proved, or nothing."""
    plain = context.config.plain()
    if key := next((key for key in _UNPROVED if plain.get(key)), None):
        return f"a model with {key} does not answer with text alone"
    if missing := server.no_vllm(context):
        return missing
    if not context.config.setting("SFT_EXPORT") and (context.run.folder / "adapter").is_dir():
        return "the adapter was not exported (SFT_EXPORT)"
    return ""


def _order(context: Context, what: Served) -> dict[str, Any]:
    folder = context.run.folder
    adapter = folder / "adapter"
    device = server.place(context).device
    base = hubcache.base_folder(context.config, context.environ)
    return {
        "base": base if adapter.is_dir() else folder / "model",
        "adapter": str(adapter) if adapter.is_dir() else None,
        "run": folder,
        "device": device,
        "dtype": _dtype(context, what),
        "prompts": PROMPTS,
        "tokens": TOKENS,
        "answers": str(context.run.log("parity").with_name("answers.json")),
    }


def _dtype(context: Context, what: Served) -> str:
    """What the server computes in, by torch's name."""
    said = str((context.config.setting(SERVE_FLAGS) or {}).get("dtype", "auto"))
    if said == "auto":
        stored = str(what.config.get("dtype") or what.config.get("torch_dtype") or "bfloat16")
        said = "float32" if server.place(context).device == "cpu" else stored
    return {"half": "float16", "float": "float32"}.get(said, said)


def _flags(context: Context) -> dict[str, Any]:
    """As it would be served, on a port of its own and with no rule of sampling but ours."""
    said = context.config.setting(SERVE_FLAGS) or {}
    kept = {name: value for name, value in said.items() if not name.startswith("ssl_")}
    kept.pop("generation_config", None)
    own = {} if layouts.read(context.run.folder) else {"generation_config": "vllm"}
    return {**kept, "host": "127.0.0.1", "port": ports.free(), **own}


def _exact(context: Context, what: Served) -> bool:
    """Whether nothing is rounded on the way: weights that were merged are, unless in float32."""
    if server.place(context).device != "cpu" or _dtype(context, what) != "float32":
        return False
    return what.source != "merged" or _stored(what.model) == {"F32"}


def _stored(folder: Path) -> set[str]:
    headers = (weights.header(path) for path in folder.glob("*.safetensors"))
    return {str(entry["dtype"]) for header in headers for entry in header.values()}


def _compare(running: Server, answer: Mapping[str, Any], *, exact: bool) -> Compared:
    prompt, tokens = answer["prompt"], answer["tokens"]
    told, found = (_written if exact else _read)(running, prompt, tokens)
    equal = next(
        (i for i, (a, b) in enumerate(zip(told, tokens, strict=True)) if a != b), len(tokens)
    )
    return Compared(
        equal,
        [abs(a - b) for a, b in zip(found[:equal], answer["logprobs"], strict=False)],
        [abs(a - b) for a, b in zip(answer["base"], answer["logprobs"], strict=True)],
    )


def _asked(running: Server, prompt: list[int], more: Mapping[str, Any]) -> dict[str, Any]:
    question = {"model": running.what.tuned, "temperature": 0, "prompt": prompt, **more}
    [choice] = running.api.post("/v1/completions", question)["choices"]
    found: dict[str, Any] = choice
    return found


def _written(running: Server, prompt: list[int], tokens: list[int]) -> Told:
    """The tokens that the server writes after the prompt."""
    more = {"ignore_eos": True, "return_token_ids": True, "logprobs": 0}
    found = _asked(running, prompt, {"max_tokens": len(tokens), **more})
    return found["token_ids"], found["logprobs"]["token_logprobs"]


def _read(running: Server, prompt: list[int], tokens: list[int]) -> Told:
    """What the server thinks of the trained model's tokens."""
    found = _asked(running, [*prompt, *tokens], {"max_tokens": 1, "prompt_logprobs": 0})
    rows = found["prompt_logprobs"][len(prompt) :]
    return tokens, [row[str(t)]["logprob"] for row, t in zip(rows, tokens, strict=True)]


def _judged(compared: list[Compared], *, exact: bool) -> StageRecord:
    found = [d for one in compared for d in one.differences]
    differences = [d if math.isfinite(d) else _ENDLESS for d in found]
    told = {
        "prompts": len(compared),
        "tokens": TOKENS,
        "equal": all(one.equal == TOKENS for one in compared) if exact else None,
        "largest_difference": max(differences, default=0.0),
        "mean_difference": fmean(differences) if differences else 0.0,
        "base_mean_difference": fmean(d for one in compared for d in one.base),
    }
    if why := _inexact(compared, told) if exact else _far(told):
        text = f"vLLM does not answer as trained: {why}"
        return told | worker.failed("parity", Exit.ARTIFACT, text)
    size = f"{len(compared)} x {TOKENS} tokens"
    line = f"{size} equal, logprobs within {told['largest_difference']:.1e}"
    if not exact:
        line = f"{size} nearly as probable, {told['mean_difference']:.1e} apart in the mean"
    LOG.info("parity: %s", line)
    return {"outcome": "done", **told, "checks": [f"vLLM answers as trained: {line}"]}


def _inexact(compared: list[Compared], told: Mapping[str, Any]) -> str:
    """Where a token is another, or a probability too far off."""
    for number, one in enumerate(compared, 1):
        if one.equal < TOKENS:
            return f"answer {number} of {len(compared)} differs from token {one.equal + 1} on"
    if told["largest_difference"] > EXACT:
        return f"a logprob differs by {told['largest_difference']:.1e}, more than {EXACT:g}"
    return ""


def _far(told: Mapping[str, Any]) -> str:
    if told["mean_difference"] <= MEAN:
        return ""
    return f"logprobs differ by {told['mean_difference']:.2g} in the mean, more than {MEAN:g}"
