"""What vLLM makes of chats, without an engine: python -m envtune.engine.rendering ORDER.json

Runs in the environment that holds vLLM. The order names the `flags` of a server that lay a
chat out, the `rows` to ask for and the file `answers` to write: the ids of each prompt. It is
vLLM's own renderer behind its own routes, which no port is opened for.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune import files

_ASKED = ("messages", "chat_template_kwargs", "chat_template")


def _app(flags: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """vLLM's app for rendering alone, its configuration and its arguments, as `vllm launch render`
    of 0.32 makes them."""
    from vllm import AsyncEngineArgs, envs
    from vllm.config import VllmConfig
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    told = (part for name, value in flags.items() for part in (f"--{name}", value) if part)
    args = parser.parse_args(list(told))
    engine = AsyncEngineArgs.from_cli_args(args)
    model = engine.create_model_config()
    model.quantization = None
    envs.VLLM_CPU_KVCACHE_SPACE = 0
    return build_app(args, ("render",)), VllmConfig(model_config=model), args


async def prompts(flags: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The ids of each row's prompt. Raises httpx.HTTPError where a row is refused."""
    import httpx
    from vllm.entrypoints.launchers.render.app_state import init_render_app_state

    app, config, args = _app(flags)
    await init_render_app_state(config, app.state, args)
    found = []
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://render") as client:
        for row in rows:
            asked = {key: row[key] for key in _ASKED if key in row}
            answer = await client.post("/tokenize", json={"model": args.model, **asked})
            answer.raise_for_status()
            found.append(answer.json()["tokens"])
    return found


def main() -> None:
    import uvloop  # vLLM's own

    order = files.read_json(Path(sys.argv[1]))
    found = uvloop.run(prompts(order["flags"], order["rows"]))
    files.write_json(Path(order["answers"]), found)


if __name__ == "__main__":
    main()
