"""Object stores and folders to publish to and to fetch from, through fsspec's clients.

An object appears whole or not at all: the stores see to that, and in a folder a rename
does. Whether it is what was sent is told by its size and its MD5, which Google and Azure
compute by themselves; S3 keeps the one that it was given, and has one of what came in one piece.
"""

import base64
import hashlib
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from envtune.errors import Problem, Refused
from envtune.machine.volumes import writable
from envtune.redaction import Secret
from envtune.settings.publish_targets import Target
from envtune.transfer.answers import Answer, Question, refuse

_CHUNK = 1 << 20
# Bytes that are asked for at once.
_BLOCK = 16 << 20
# What a client raises when nobody gave it a key.
_NO_KEY = (
    "NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError",
    "ConfigFileNotFound", "InvalidConfig",
)  # fmt: skip
_REFUSED = (401, 403, 404)


class Denied(Exception):
    """The place may not be written to, or is not there. Another try would not help."""


class Unreached(Exception):
    """The place did not answer, or not well. Another try may help, `after` so many seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True)
class Found:
    """What is to be had under a name: bytes where they are known, and what changes with it."""

    size: int | None
    version: str = ""


@dataclass(frozen=True)
class Held:
    """What a place holds under a name: bytes, and a digest where it tells one."""

    size: int
    algorithm: str = ""
    digest: str = ""

    def equals(self, path: Path) -> bool:
        """Whether it is the same as a file. Without a digest it is not known to be."""
        known = bool(self.digest) and self.size == path.stat().st_size
        return known and self.digest == digest(path, self.algorithm)


def digest(path: Path, algorithm: str) -> str:
    """A file's digest in hexadecimal: md5, sha256, or git's of a blob."""
    found = hashlib.new({"git": "sha1"}.get(algorithm, algorithm), usedforsecurity=False)
    if algorithm == "git":
        found.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK):
            found.update(data)
    return found.hexdigest()


def load(url: str) -> None:
    """Imports the client of a URL's store, which may take seconds. Raises Refused where it is not
    installed: the wheel alone brings none."""
    from fsspec import get_filesystem_class

    scheme = _scheme(url)
    try:
        get_filesystem_class(scheme)
        _errors(scheme)
    except ImportError as error:
        what = "is not installed here: the image has it, and a checkout after `make setup`"
        name = getattr(error.__cause__ or error, "name", None) or scheme
        raise Refused([Problem(url, f"{name}, which reaches it, {what}")]) from None


def _scheme(url: str) -> str:
    """The client's word; adl:// was the first lake of Azure's, and is today's for Axolotl too."""
    scheme = url.partition(":")[0].lower()
    return "abfs" if scheme == "adl" else scheme


class Objects:
    """All objects below a URL."""

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        """Raises Denied where the client cannot do without a key."""
        from fsspec.core import url_to_fs

        self.url, self.scheme = url, _scheme(url)
        options = _options(self.scheme, environ)
        # Shows a traceback for each of its own tries.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        with self._told():
            made: tuple[Any, str] = url_to_fs(
                f"{self.scheme}:{url.partition(':')[2]}", skip_instance_cache=True, **options
            )
            self._files, self._root = made

    def listing(self) -> dict[str, Held]:
        """What is there, by its name below the URL. Raises Denied and Unreached."""
        with self._told():
            below = len(self._root) + 1
            return {path[below:]: self._held(path, told) for path, told in self._objects().items()}

    def found(self, pattern: str = "") -> dict[str, Found]:
        """What is below the URL, or meets a pattern there. Raises Denied and Unreached."""
        from fsspec.utils import glob_translate  # Azure's own glob tells no sizes

        with self._told():
            below = len(self._root) + 1
            meets = re.compile(glob_translate(pattern) if pattern else "").match
            return {
                path[below:]: Found(told["size"], _version(told))
                for path, told in self._objects().items()
                if meets(path[below:])
            }

    def _objects(self) -> dict[str, Mapping[str, Any]]:
        """What the client tells of every object below the URL, or of the one that it names."""
        self._files.invalidate_cache()
        found = self._files.find(self._root, detail=True)
        if not isinstance(found, dict):  # as Azure's does for one object
            found = {path: self._files.info(path) for path in found}
        # An object whose name ends with / is a folder that somebody made in a console.
        return {path: told for path, told in found.items() if not path.endswith("/")}

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """An object in pieces, from a byte on. Raises Denied and Unreached."""
        path = f"{self._root}/{name}" if name else self._root
        with self._told(), self._files.open(path, "rb") as stream:
            stream.seek(start)
            while data := stream.read(_BLOCK):
                yield data

    def send(self, files: Mapping[str, Path], gone: list[str]) -> None:
        """Puts files under their names and removes others. Raises Denied and Unreached."""
        for name, path in files.items():
            with self._told():
                self._put(path, f"{self._root}/{name}")
        for name in gone:
            with self._told():
                self._files.rm_file(f"{self._root}/{name}")

    def commit(self) -> str | None:
        """A store keeps no commits."""
        return None

    def probe(self) -> None:
        """Writes an object and removes it. Raises Denied and Unreached."""
        with self._told():
            name = f"{self._root}/.envtune-{secrets.token_hex(4)}"
            self._files.pipe_file(name, b"may this be written?")
            self._files.rm_file(name)

    def _put(self, path: Path, target: str) -> None:
        if self.scheme == "file":
            aside = f"{target}.partial"
            self._files.put_file(str(path), aside)
            self._files.mv(aside, target)
        else:
            sent = {"Metadata": {"md5": digest(path, "md5")}} if self.scheme == "s3" else {}
            self._files.put_file(str(path), target, **sent)

    def _held(self, path: str, told: Mapping[str, Any]) -> Held:
        if self.scheme == "file":
            return Held(told["size"], "md5", digest(Path(path), "md5"))
        if self.scheme == "s3":
            md5 = self._files.metadata(path, refresh=True).get("md5")
            return Held(told["size"], "md5", md5 or str(told.get("ETag", "")).strip('"'))
        if self.scheme in ("gs", "gcs"):
            return Held(told["size"], "md5", base64.b64decode(told.get("md5Hash", "")).hex())
        return Held(
            told["size"], "md5", bytes(told["content_settings"]["content_md5"] or b"").hex()
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except _errors(self.scheme) as error:
            text = " ".join(str(error).split())
            kind = Denied if _is_refusal(error) else Unreached
            raise kind(f"{self.url}: {type(error).__name__}: {text[:300]}") from error


def _version(told: Mapping[str, Any]) -> str:
    """What a store says of an object that another content changes."""
    names = ("ETag", "etag", "generation", "LastModified", "last_modified", "updated", "mtime")
    return str(next((told[name] for name in names if told.get(name)), ""))


def _options(scheme: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What a client has to be told. A key that came from a file is in no environment that
    S3's client reads."""
    if scheme == "file":
        return {"auto_mkdir": True}
    if scheme != "s3":
        return {}
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY",
             "token": "AWS_SESSION_TOKEN"}  # fmt: skip
    given = {option: _plain(environ[n]) for option, n in names.items() if environ.get(n)}
    patience = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}
    return {"config_kwargs": patience} | (given if {"key", "secret"} <= given.keys() else {})


def _plain(text: str) -> str:
    return text.reveal() if isinstance(text, Secret) else text


def _errors(scheme: str) -> tuple[type[Exception], ...]:
    """What a store's client raises about the store."""
    if scheme == "file":
        return (OSError,)
    import aiohttp

    common = (OSError, aiohttp.ClientError)
    if scheme == "s3":
        from botocore.exceptions import BotoCoreError

        return (*common, BotoCoreError)
    if scheme in ("gs", "gcs"):
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError

        return (*common, HttpError, GoogleAuthError)
    if scheme == "oci":
        from oci.exceptions import ClientError, ServiceError

        return (*common, ClientError, ServiceError)
    from azure.core.exceptions import AzureError

    return (*common, AzureError, ValueError)  # adlfs raises the last where no account is named


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError | ValueError):
        return True
    status = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    return type(error).__name__ in _NO_KEY or any(code in _REFUSED for code in status)


def question(place: Target, environ: Mapping[str, str]) -> Question:
    """Asks a store, whose client is there before the clock starts, whether it may be written to."""
    load(place.url)
    return (
        partial(_ask_to_write, place, environ),
        partial(refuse, place.name, f"{place.url} does not answer"),
    )


def _ask_to_write(place: Target, environ: Mapping[str, str]) -> Answer:
    if place.url.startswith("file://"):
        return Answer(writable(place.name, place.url.removeprefix("file://")))
    try:
        Objects(place.url, environ).probe()
    except Denied as error:
        return refuse(place.name, f"{error}; check the address and its credentials")
    except Unreached as error:
        return refuse(place.name, f"{error}; check the network and the address")
    return Answer()
