"""Where a data set lies that is not on this machine: object stores, and files of web servers. Pure.

An address may hold a key (a signed one, or a user): what is shown has none.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from envtune.redaction import has_key_in_url, without_user

STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci")
WEB = ("https", "http")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MAGIC = re.compile(r"[*?[]")
# The word before the @ of these is the container, and no user.
_AZURE = ("abfs", "abfss", "adl", "az")


def scheme(text: str) -> str:
    """The scheme of an address, or nothing for a path and a name of the Hub."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_remote(text: Any) -> bool:
    return isinstance(text, str) and scheme(text) in (*STORES, *WEB)


def of(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The addresses that the rows of a data set come from; none where they are here or the Hub's.

    `data_files` come before the path, below which they lie where they are no addresses.
    """
    path, given = str(item.get("path") or ""), item.get("data_files")
    several = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    if several and is_remote(path):
        several = [one if scheme(str(one)) else f"{path.rstrip('/')}/{one}" for one in several]
    found = several or [path]
    return tuple(found) if all(map(is_remote, found)) else ()


def shown(url: str) -> str:
    """An address as people may see it: with no user and, where it holds a key, no query."""
    if scheme(url) in _AZURE:
        return url
    plain = without_user(url)
    if not has_key_in_url(plain) and scheme(url) in STORES:
        return plain
    try:
        parts = urlsplit(plain)
    except ValueError:
        return plain.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def identity(url: str) -> str:
    """What stays the same of an address that is signed anew."""
    return shown(url) if has_key_in_url(url) else url


def without_pattern(url: str) -> tuple[str, str]:
    """An address of a store up to its first part with `*`, `?` or `[`, and the rest."""
    start, _, rest = url.partition("://")
    parts = rest.split("/")
    first = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    return f"{start}://{'/'.join(parts[:first])}", "/".join(parts[first:])


def refusals(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The key and what is wrong with an address in a data set, told without a network."""
    path, files = str(item.get("path") or ""), item.get("data_files")
    if scheme(path) and not is_remote(path):
        allowed = ", ".join(f"{name}://" for name in (*STORES, *WEB))
        what = f"{shown(path)} cannot be fetched; allowed: {allowed}, a local path, a name of the"
        yield "path", f"{what} Hub{_instead(scheme(path))}"
    elif is_remote(path) and not _host(path):
        yield "path", f"{shown(path)} names no {'host' if scheme(path) in WEB else 'bucket'}"
    several = [files] if isinstance(files, str) else files if isinstance(files, list) else []
    remote = [one for one in several if is_remote(one)]
    if remote and len(remote) < len(several) and not is_remote(path):
        yield "data_files", "are in part here and in part elsewhere; make them two data sets"
    rest = {key: value for key, value in item.items() if key not in ("path", "data_files")}
    if has_key_in_url(str(rest)):
        yield "", "holds a URL with a user, password or key that is not where its rows come from"


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _instead(scheme: str) -> str:
    if scheme == "file":
        return "; write the path alone, without file://"
    return "; write org/name alone, without hf://" if scheme == "hf" else ""
