"""Gives a text or a structured value the type that a JSON schema node asks for.

Environment variables are text; Axolotl's settings are typed. The rules:

- `null`, `none` and `~` are null where null is allowed.
- `true/false`, `yes/no`, `on/off` (any case) are booleans; `1` and `0` too where the
  setting takes no number.
- Numbers may be written `.0002`, `2e-4` or `1_000`; `nan` and `inf` are refused.
- A setting that takes only text gets the text as it is: `2024` stays `"2024"`, spaces stay.
- A member of an enumeration is that member, also `none`.
- Lists and objects are JSON; a list of scalars may also be separated by commas.
- In a JSON value a scalar in quotes is read like a text where no text is allowed.

Nothing here knows where a value came from: a `Mismatch` holds the path inside the
value and what is allowed there, and the caller names the variable.
"""

from envtune.settings.schema.mismatch import Mismatch
from envtune.settings.schema.nodes import Node
from envtune.settings.schema.schema import DROPPED, Schema

__all__ = ["DROPPED", "Mismatch", "Node", "Schema"]
