"""One file of a web server, by httpx: what the Hub's own client asks with.

A server that tells no length and no ETag is read all the same; what came is told by its content
then. A signed address may be asked by GET alone, so that is how everything is asked.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from envtune.data.reading import formats
from envtune.errors import Exit, Problem, Refused
from envtune.transfer.addresses import shown
from envtune.transfer.hub import reason
from envtune.transfer.stores import Denied, Found, Unreached

_REDIRECTS = 10
_CONNECT, _READ = 10.0, 60.0
_BUSY = (408, 425, 429)
# The end of a name that tells how rows are written, where nothing but the server says it.
_KINDS = {
    "application/json": ".json", "application/jsonl": ".jsonl", "application/x-ndjson": ".jsonl",
    "application/jsonlines": ".jsonl", "text/csv": ".csv", "text/tab-separated-values": ".tsv",
    "application/vnd.apache.parquet": ".parquet",
}  # fmt: skip
_LONGEST = 120


class Page:
    """A file behind an address of https:// or http://."""

    def __init__(self, url: str) -> None:
        self.url, self.shown = url, shown(url)
        self.name, self._version = "", ""

    def found(self, pattern: str = "") -> dict[str, Found]:
        """The file, and nothing of it. Raises Denied and Unreached."""
        with self._asked({}) as response:
            self.name, self._version = _name(self.url, response), _version(response)
            return {"": Found(_size(response, self.name), self._version)}

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """The file in pieces, from a byte on. Raises Denied, Unreached, and Refused for a page."""
        with self._asked({"Range": f"bytes={start}-"} if start else {}) as response:
            if _version(response) != self._version:
                raise Unreached(f"{self.shown} has changed while it was fetched")
            behind = start if response.status_code != 206 else 0
            first = True
            for data in _pieces(response, self.name):
                if first and not start:
                    self._refuse_page(response, data)
                first = False
                yield data[behind:]
                behind = max(0, behind - len(data))

    def _refuse_page(self, response: Any, data: bytes) -> None:
        kind = response.headers.get("Content-Type", "")
        if "html" in kind and data.lstrip()[:1] == b"<":
            what = "leads to a page (HTML) and not to rows; give the address of the file itself"
            raise Refused([Problem("", f"{self.shown} {what}", Exit.DATA)])

    @contextmanager
    def _asked(self, headers: dict[str, str]) -> Iterator[Any]:
        """An answer with what was asked for. Raises Denied and Unreached."""
        import httpx

        plain = {"Accept-Encoding": "identity", "User-Agent": "envtune", **headers}
        timeout = httpx.Timeout(_READ, connect=_CONNECT)
        try:
            with httpx.Client(
                follow_redirects=True, max_redirects=_REDIRECTS, timeout=timeout,
                event_hooks={"request": [self._keep_secure]},
            ) as client, client.stream("GET", self.url, headers=plain) as response:  # fmt: skip
                self._judge(response)
                yield response
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise Denied(f"{self.shown}: {_plainly(error)}") from None
        except httpx.HTTPError as error:
            why = f"{self.shown} cannot be reached ({reason(error)})"
            if "certificate" in reason(error):
                raise Denied(why) from None
            raise Unreached(why) from None

    def _keep_secure(self, request: Any) -> None:
        if self.url.lower().startswith("https:") and request.url.scheme != "https":
            raise Denied(f"{self.shown} leads on to {request.url.scheme}://, which is not followed")

    def _judge(self, response: Any) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        why = f"{self.shown} answers with status {status}"
        if status >= 500 or status in _BUSY:
            asked = response.headers.get("Retry-After", "")
            raise Unreached(why, float(asked) if asked.isdigit() else 0.0)
        signed = self.shown != self.url and status in (400, 401, 403)
        raise Denied(f"{why}{', its signature or its key may be over' if signed else ''}")


def _plainly(error: Exception) -> str:
    return f"{type(error).__name__}"


def _pieces(response: Any, name: str) -> Iterator[bytes]:
    """The bytes as they are in the file: what is packed by its name stays so."""
    yield from response.iter_raw() if _is_plain(response, name) else response.iter_bytes()


def _is_plain(response: Any, name: str) -> bool:
    packed = response.headers.get("Content-Encoding", "identity") != "identity"
    return not packed or name.endswith((".gz", ".zst"))


def _size(response: Any, name: str) -> int | None:
    told = response.headers.get("Content-Length", "")
    return int(told) if told.isdigit() and _is_plain(response, name) else None


def _version(response: Any) -> str:
    headers = response.headers
    return str(headers.get("ETag") or headers.get("Last-Modified") or "")


def _name(url: str, response: Any) -> str:
    """What the file is called: the first that tells how its rows are written, else the address's
    last part."""
    sent = re.search(
        r"filename\*?=(?:UTF-8'')?\"?([^\";]+)", response.headers.get("Content-Disposition", "")
    )
    given = [urlsplit(str(one)).path for one in (url, response.url)] + [sent[1] if sent else ""]
    names = [unquote(one).replace("\\", "/").rstrip("/").rpartition("/")[2] for one in given]
    names = [re.sub(r"[^\w.+ -]", "_", one).lstrip(".")[-_LONGEST:] for one in names]
    if known := next(filter(formats.kind_of, names), None):
        return known
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return (names[0] or "rows") + _KINDS.get(kind, "")
