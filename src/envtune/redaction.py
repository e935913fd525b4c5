"""What is a secret, and a text without it. Pure."""

import re
from collections.abc import Mapping, Sequence

# The Hub's token: its name and the two old ones.
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")

_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS|CONNECTION_STRING)$")
# A user or a password in a URL, also in one inside JSON.
USERINFO = re.compile(r"://([^/\s@\"]+)@")
# A key in a URL's query, a signed URL's signature among them.
_KEY_IN_QUERY = re.compile(
    r"[?&][\w.-]*(token|key|secret|passw(or)?d|sig|signature|credential)=", re.IGNORECASE
)
# Shorter values are words that a log may hold for other reasons.
_SHORTEST = 8


class Secret(str):
    """A value that no log line shows by accident. A child's environment gets it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "[secret]"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "[secret]"

    def reveal(self) -> str:
        """The value, for the one call that needs it."""
        return str.__str__(self)


def hidden(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with each value that its name calls a secret as one that no line shows."""
    secret = (name for name in environ if _NAME.search(name.upper()))
    return {**environ, **{name: Secret(environ[name]) for name in secret}}


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values that may appear nowhere: by the variable's name, or before a URL's @."""
    named = {v.strip() for n, v in environ.items() if _NAME.search(n.upper())}
    in_urls = {found for v in environ.values() for found in USERINFO.findall(v)}
    parts = {part for found in in_urls for part in found.split(":")}
    return tuple(s for s in named | in_urls | parts if len(s) >= _SHORTEST)


def has_key_in_url(text: str) -> bool:
    """Whether a URL in `text` holds a user, a password or a key."""
    return bool(USERINFO.search(text) or ("://" in text and _KEY_IN_QUERY.search(text)))


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    return text
