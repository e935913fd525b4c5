"""The doctor on the network: where nodes meet, proxies, certificates, the Hub and the clock.

An address is shown without a user, and what an answer says is taken for nothing but its status and
its Date.
"""

import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from envtune.checks.doctor.subject import Subject
from envtune.checks.doctor.table import Sign, found, problem, skipped, well
from envtune.machine import certificates, ports, rendezvous
from envtune.machine.rendezvous import Rendezvous
from envtune.redaction import without_user
from envtune.resolve import accelerate_flags
from envtune.settings import publish_targets
from envtune.supervise import trackers
from envtune.transfer import hub

# Seconds for one connection or one request.
_PATIENCE = 5.0
# A clock is told on these, seconds: leases speak of minutes, S3 refuses a signature of 15 of them.
_OFF, _FAR_OFF = 60.0, 900.0
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


def nodes(subject: Subject) -> Iterator[Sign]:
    """Whether the nodes can meet where the variables say."""
    where, wrong = rendezvous.read(subject.environ, accelerate_flags.given(subject.settings))
    if wrong:
        yield from (problem("D-RDV-01", told) for told in wrong)
    elif where.nodes == 1 and where.port is None:
        yield skipped("one node, and its processes meet at a free port")
    else:
        yield from _meeting(where)


def _meeting(where: Rendezvous) -> Iterator[Sign]:
    host, port = where.meeting
    try:
        address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        yield found("D-RDV-02", f"{host}: {error.strerror}")
        return
    if where.nodes > 1:
        yield from _own_name()
    if not where.rank:
        yield from _listening(port)
        return
    try:
        socket.create_connection((address, port), _PATIENCE).close()
        yield well(f"{host}:{port} ({address}) answers")
    except ConnectionRefusedError:
        yield well(f"{host} ({address}) is there; nobody listens at {port} yet")
    except OSError as error:
        yield found("D-RDV-04", f"{host}:{port} ({address}): {error.strerror or 'no answer'}")


def _listening(port: int) -> Iterator[Sign]:
    if why := ports.in_use("0.0.0.0", port):
        yield found("D-RDV-03", f"port {port} {why}")
    else:
        yield well(f"this is node 0, and port {port} is free")


def _own_name() -> Iterator[Sign]:
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        yield found("D-RDV-05", f"{name}: {error.strerror}")


def proxies(subject: Subject) -> Iterator[Sign]:
    """Whether each proxy that is set takes a connection."""
    named = {
        name: value for name, value in subject.environ.items() if name.lower() in _PROXIES and value
    }
    if not named:
        yield skipped("none is set")
    for name, value in sorted(named.items()):
        url = urlsplit(value if "://" in value else f"http://{value}")
        shown = without_user(url.geturl())
        try:
            default = 443 if url.scheme == "https" else 80
            socket.create_connection((url.hostname or "", url.port or default), _PATIENCE).close()
            yield well(f"{name}: {shown} takes connections")
        except (OSError, ValueError) as error:
            yield found("D-PRX-01", f"{name}: {shown}: {_why(error)}")


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def trust(subject: Subject) -> Iterator[Sign]:
    """The certificates that clients go by."""
    environ = subject.environ
    off, bundle = certificates.is_off(environ), environ.get(certificates.CA_BUNDLE, "").strip()
    wrong = list(certificates.problems(bundle or None, off=off))
    yield from (problem("D-TLS-01", told) for told in wrong)
    others = {n: environ[n] for n in certificates.BUNDLES if environ.get(n) and not bundle}
    lost = [
        f"{name}: {path} is not there" for name, path in others.items() if not os.path.exists(path)
    ]
    yield from (found("D-TLS-01", line, "correct it or unset it") for line in lost)
    if off:
        yield found("D-TLS-03", f"{certificates.INSECURE} is true")
    elif not wrong and not lost:
        yield well(bundle or ", ".join(sorted(others)) or "each client's own certificates")


def the_hub(subject: Subject) -> Iterator[Sign]:
    """Whether the Hub answers at all."""
    if why := not_asked(subject):
        yield skipped(why)
        return
    url = hub.address(subject.environ)
    shown = without_user(url)
    try:
        status, took, _ = _asked(url)
    except Exception as error:  # httpx's, and those of a URL that is none
        text = f"{shown}: {hub.reason(error)}"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            yield found("D-TLS-02", text)
        else:
            yield found("D-HUB-01", f"{shown}: {_plainly(error)}")
        return
    yield well(f"{shown} answers with status {status} in {took:.1f} s")


def _plainly(error: Exception) -> str:
    """Why nobody answers, in the words of the system's where it has some."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def not_asked(subject: Subject) -> str:
    """Why the Hub is not asked, or nothing."""
    if switch := hub.offline(subject.environ):
        return f"{switch} is set"
    if subject.settings.get("SFT_LOCAL_FILES_ONLY"):
        return "SFT_LOCAL_FILES_ONLY is set"
    published = any(place.id for place in publish_targets.wanted(subject.settings))
    if subject.facts is not None and subject.facts.local and not published:
        return "all that is asked for is here"
    return ""


def clock(subject: Subject) -> Iterator[Sign]:
    """This clock against the Date of the first server that answers: the Hub, W&B, MLflow.

    Between the request and the answer lies the truth, and a Date has whole seconds.
    """
    asked = list(_clocks(subject))
    for url in asked:
        try:
            _, took, date = _asked(url)
        except Exception as error:  # another may answer
            why = f"{without_user(url)}: {_plainly(error)}"
            continue
        if date is None:
            why = f"{without_user(url)} tells no time"
            continue
        yield _judged(without_user(url), date, took)
        return
    yield skipped(why if asked else "nobody may be asked")


def _clocks(subject: Subject) -> Iterator[str]:
    if not not_asked(subject):
        yield hub.address(subject.environ)
    environ = subject.environ
    if environ.get("WANDB_API_KEY") and environ.get("WANDB_MODE", "online").lower() == "online":
        yield trackers.wandb_url(environ)
    if (uri := environ.get("MLFLOW_TRACKING_URI", "")).startswith(("http://", "https://")):
        yield uri


def _judged(shown: str, date: datetime, took: float) -> Sign:
    """`took`: seconds of the request, by which the answer may be old."""
    ahead = datetime.now(UTC).timestamp() - date.timestamp()
    least, most = ahead - took - 1, ahead
    off = max(least, -most, 0.0)  # what it is off at least
    way = "ahead of" if least > 0 else "behind"
    seen = f"{off:.0f} s {way} {shown} (within {took + 1:.1f} s)"
    if off > _FAR_OFF:
        return found("D-CLK-02", seen)
    return found("D-CLK-01", seen) if off > _OFF else well(f"as {shown}, within {took + 1:.1f} s")


def _asked(url: str) -> tuple[int, float, datetime | None]:
    """Status, seconds and Date of a HEAD request. Raises httpx.HTTPError and InvalidURL."""
    import httpx

    started = time.monotonic()
    answer = httpx.head(url, timeout=_PATIENCE, follow_redirects=False)
    return answer.status_code, time.monotonic() - started, _date(answer.headers.get("Date"))


def _date(text: Any) -> datetime | None:
    try:
        told = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return told if told.tzinfo else told.replace(tzinfo=UTC)
