"""Foreign dialects -> envtune's own names: one table each, and one applier.

A dialect is told by the top keys of its document; the SFT trainer's flags also come as
`SFT_<FLAG>`. A translated entry keeps the name that the user typed and carries the key that
it means; nothing else knows that dialects exist.
"""

from envtune.settings.dialects.registry import DIALECTS, TRAINER, flags
from envtune.settings.dialects.translation import translate

__all__ = ["DIALECTS", "TRAINER", "flags", "translate"]
