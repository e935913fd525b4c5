"""Where the environments of the other engines are: vLLM's and llmcompressor's.

Each pins what Axolotl pins otherwise, so that each is an environment of its own, beside
the one that trains.
"""

import sys
from pathlib import Path

VLLM = ".venv-serve"


def find(setting: str | None, default: str) -> Path | None:
    """The Python of an environment, or None where there is none.

    `setting` is the folder that the user named, `default` the name of the folder beside
    the environment that this process runs in.
    """
    folder = Path(setting) if setting else Path(sys.prefix).parent / default
    python = folder / "bin" / "python"
    return python if python.exists() else None
