"""What a setting of envtune's own is, and the schema nodes that many of them share."""

from dataclasses import dataclass
from typing import Any

TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 1, "maximum": 9999}
SECONDS = {"type": "integer", "minimum": 1, "maximum": 86400}


@dataclass(frozen=True)
class Own:
    """One setting of envtune: a JSON schema node, a default and a line of meaning."""

    node: dict[str, Any]
    default: Any
    meaning: str
