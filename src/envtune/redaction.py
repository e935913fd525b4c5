"""What is a secret, and a text without it. Pure.

A name tells by its words, an address by its parts as the library of the language reads them.
A text is searched for every form in which programs write a value: as it is, each of its lines,
quoted for a URL, escaped for JSON, Python, YAML or HTML, and in any base64.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

# The Hub's token: its name and the two old ones.
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
# Addresses that are keys as a whole, most of all their paths.
_SENT_TO = re.compile(r"NOTIFY_URL|WEBHOOK")
# Words of a name: each anywhere in it, or at its end alone.
_ANYWHERE = re.compile(
    r"(?:^|_)(?:(?:PG)?(?:PASSWORD|PASSWD|PASSPHRASE)|SECRETS?|CREDENTIALS?|WEBHOOKS?|APIKEYS?|"
    r"NOTIFY_URL|API_KEYS?|ACCESS_KEYS?|PRIVATE_KEYS?|DSN|TOKEN|KEY|PAT)(?:_|\Z)"
)
_AT_THE_END = re.compile(
    r"(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS|CONNECTION_STRING|PGPASS|"
    r"_PASS|_PWD|_AUTH|_HEADERS|_COOKIE)\Z"
)
# Names that speak of a secret and hold none: where it lies, how long it is, what it is called.
_OF_NONE = re.compile(
    r"(?:_(?:FILE|PATH|DIR|IDS|TYPE|LIMIT|LENGTH|COUNT|NAME|SIZE|BUDGET|CAPACITY|THRESHOLD|"
    r"SCALING|EMBEDDINGS?|INDICES|STR|TTL|EXPIRY|ENABLED|REQUIRED)|TOKEN_ID|"
    r"(?:PAD|EOS|BOS|UNK|SEP|CLS|MASK|EOT|EOM|THINKING|SORT|PRIMARY|PARTITION|MESSAGE|FIELD)"
    r"_(?:TOKEN|KEY))\Z"
)
# An address in a text, up to what can be no part of one.
_URL = re.compile(r"\w[\w+.-]{0,30}://[^\s\"'<>`]+")
# A parameter of an address whose value is a key, a signed address's signature among them.
_KEY = re.compile(r"(token|key|secret|passw(or)?d|sig|signature|credential)\Z", re.IGNORECASE)
_HOST = re.compile(r"[\w.-]+:\d+(?:/|\Z)")
# Shorter values are words that a log may hold for other reasons, and so are these.
_SHORTEST = 8
_WORDS = {
    "password", "changeme", "disabled", "required", "anonymous", "username", "undefined",
    "localhost", "dummy-key", "not-needed", "authorization", "[secret]", "huggingface",
}  # fmt: skip


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


def is_secret(name: str) -> bool:
    """Whether a variable's name says that its value is a secret."""
    name = name.upper()
    if _OF_NONE.search(name) or name.endswith("PATTERN"):
        return False
    return bool(_ANYWHERE.search(name) or _AT_THE_END.search(name))


def hidden(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with each value that its name calls a secret as one that no line shows."""
    return {**environ, **{name: Secret(environ[name]) for name in environ if is_secret(name)}}


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values that may appear nowhere: by the variable's name, or a part of a URL's."""
    found: set[str] = set()
    for name, value in environ.items():
        plain = value.reveal() if isinstance(value, Secret) else value
        if is_secret(name):
            found |= {plain.strip(), *_parts(plain, headers=name.upper().endswith("_HEADERS"))}
        if _SENT_TO.search(name.upper()):
            found |= set(_of_address(plain))
        for _, url in _urls(plain):
            found |= set(_in_url(url))
    return tuple(sorted(filter(_tells, found)))


def _tells(value: str) -> bool:
    """Whether a value is one that a log holds for no other reason."""
    return len(value) >= _SHORTEST and len(set(value)) > 2 and value.lower() not in _WORDS


def _parts(value: str, *, headers: bool) -> Iterator[str]:
    """What inside of a secret is one of its own: its lines, a JSON's texts, a header's value."""
    yield from (line.strip() for line in value.splitlines())
    if headers:
        for pair in re.split(r"[,;\n]", value):
            said = unquote(re.split(r"[=:]", pair, maxsplit=1)[-1]).strip()
            yield from (said, said.split(" ")[-1])
    if value.lstrip().startswith("{"):
        try:
            held = json.loads(value)
        except (ValueError, RecursionError):
            return
        texts = [text for name, text in held.items() if isinstance(text, str) and is_secret(name)]
        yield from (line for text in texts for line in [text, *text.splitlines()])


def _of_address(value: str) -> Iterator[str]:
    """What of an address that is a secret is one of its own: its path, and the last part of it."""
    path = value.strip().partition("://")[2].partition("/")[2]
    yield from (path, path.rpartition("/")[2])


def _urls(text: str) -> Iterator[tuple[int, str]]:
    if "://" in text:
        yield from ((found.start(), found[0]) for found in _URL.finditer(text))


def _userinfo(url: str) -> str:
    """What stands before an address's @, as it is written; empty for nothing.

    A password with / ? # in it makes an address that no library reads as it was meant: where
    what should be the port is none, or a host with a port follows an @, it reaches to that @.
    """
    rest = url.split("://", 1)[1]
    before, _, after = rest.rpartition("@")
    if ":" in before and _HOST.match(after):
        return before
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is none
        return parts.netloc.rpartition("@")[0]
    except ValueError:
        return before


def _in_url(url: str) -> Iterator[str]:
    """The user, the password and the keys in an address, as written and as meant."""
    held = _userinfo(url)
    user, _, password = held.partition(":")
    for text in (held, user, password):
        yield from (text, unquote(text))
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        return
    yield from (value for name, value in query if _KEY.search(name))


def has_user_in_url(text: str) -> bool:
    """Whether a URL in `text` holds a user or a password."""
    return any(_userinfo(url) for _, url in _urls(text))


def has_key_in_url(text: str) -> bool:
    """Whether a URL in `text` holds a user, a password or a key."""
    return any(_userinfo(url) or _keyed(url) for _, url in _urls(text))


def _keyed(url: str) -> bool:
    try:
        query = urlsplit(url).query
    except ValueError:
        return False
    return any(_KEY.search(unquote(pair.partition("=")[0])) for pair in re.split("[&;]", query))


def without_user(text: str) -> str:
    """`text` with no user and no password in its URLs."""
    made, at = "", 0
    for start, url in _urls(text):
        if held := _userinfo(url):
            first = start + url.index("://") + 3
            made, at = made + text[at:first], first + len(held) + 1
    return made + text[at:]


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets, in whichever form."""
    found = _pattern(tuple(secrets)) if secrets else None
    return found.sub("[secret]", text) if found else text


def forms(secret: str) -> set[str]:
    """Every way in which a program may write a secret."""
    meant = {secret, unquote(secret), unquote_plus(secret), *secret.splitlines(), secret.strip()}
    meant = {text for text in meant if _tells(text)}
    return {form for text in meant for form in _written(text) if len(form) >= _SHORTEST}


def _written(text: str) -> Iterator[str]:
    raw = text.encode(errors="surrogatepass")
    escaped = {text, *(json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False))}
    import html  # a start without secrets has no use for its table

    escaped |= {repr(text)[1:-1], repr(raw)[2:-1], text.replace("'", "''"), html.escape(text)}
    escaped |= {text.replace("'", "'\"'\"'"), text.replace("\n", "\r\n"), raw.hex()}
    yield from escaped | {json.dumps(one)[1:-1] for one in escaped}
    for quoted in (quote(raw), quote(raw, safe=""), quote_plus(raw), quote(raw, safe="/+=@:")):
        yield from (quoted, re.sub("%..", lambda found: found[0].lower(), quoted))
    yield from _encoded(raw)


def _encoded(raw: bytes) -> Iterator[str]:
    """Those characters of a base64 that are the same whatever stands around `raw`."""
    for before in range(3):
        plain = base64.b64encode(b"\0" * before + raw).decode()
        sure = plain[-(-before * 4 // 3) : (before + len(raw)) * 8 // 6]
        yield from {sure, sure.translate(str.maketrans("+/", "-_")), quote(sure, safe="")}


@lru_cache(maxsize=8)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str] | None:
    """One expression for every form: a tree by first letters, so that most of a text fails at
    once, and in it the longest first."""
    every = {form for secret in secrets for form in forms(secret)}
    return re.compile(_tree(every, 2)) if every else None


def _tree(texts: Iterable[str], depth: int) -> str:
    texts = sorted(texts, key=lambda text: (-len(text), text))
    if not depth or len(texts) == 1:
        return "|".join(map(re.escape, texts))
    firsts = sorted({text[0] for text in texts})
    within = {first: [text[1:] for text in texts if text[0] == first] for first in firsts}
    return "|".join(f"{re.escape(f)}(?:{_tree(inner, depth - 1)})" for f, inner in within.items())
