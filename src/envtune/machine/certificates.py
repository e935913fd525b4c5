"""Whose certificates the clients of a run trust: one bundle for all, or none verified.

Each client has a variable of its own. Python's have none that turns verification off, so
that is done by a module that Python loads at its start (`unverified`).
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from envtune import files
from envtune.errors import Problem

# A system's whole bundle is some 200 KiB.
_LARGEST = 16 << 20
CA_BUNDLE, INSECURE = "SFT_CA_BUNDLE", "SFT_INSECURE_TLS"
# Python's ssl and httpx and Go's clients; requests; curl; git; AWS's; pip; Google's gRPC.
BUNDLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE",
    "PIP_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)  # fmt: skip
_UNVERIFIED = str(Path(__file__).parent / "unverified")
# Clients in other languages, and MLflow's, which insists on its own; Xet's has no switch.
_OFF = {
    "GIT_SSL_NO_VERIFY": "true",
    "WANDB_INSECURE_DISABLE_SSL": "true",
    "MLFLOW_TRACKING_INSECURE_TLS": "true",
    "HF_HUB_DISABLE_XET": "1",
}
# What the compose pipeline and others set to verify nothing, and the values that ask for it.
_YES = ("1", "true", "yes", "on")
TOGGLES: Mapping[str, tuple[str, ...]] = {
    "CURL_CA_BUNDLE": ("",),
    "REQUESTS_CA_BUNDLE": ("",),
    "SSL_CERT_FILE": ("",),
    "PYTHONHTTPSVERIFY": ("0",),
    "HF_HUB_DISABLE_SSL_VERIFY": _YES,
    "GIT_SSL_NO_VERIFY": _YES,
}


def trusted(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """`environ` as every client should see it, and what to warn of.

    A client's own variable that names a file is stronger than the bundle for all.
    """
    asked = [n for n, off in TOGGLES.items() if environ.get(n, "none").strip().lower() in off]
    found = {name: value for name, value in environ.items() if name not in asked}
    if is_off(environ):
        path = os.pathsep.join(filter(None, (_UNVERIFIED, environ.get("PYTHONPATH"))))
        warning = f"{INSECURE}: certificates are NOT verified: whoever is on the way can read"
        return {**found, **_OFF, "PYTHONPATH": path}, [f"{warning} tokens and change models"]
    if bundle := environ.get(CA_BUNDLE, "").strip():
        path = os.path.abspath(bundle)
        found = {**dict.fromkeys(BUNDLES, path), **found}
    if not asked:
        return found, []
    what = f"asked to verify no certificate and not followed: set {CA_BUNDLE} to your company's"
    return found, [f"{', '.join(asked)}: {what} certificates, or {INSECURE}=true"]


def is_off(environ: Mapping[str, str]) -> bool:
    return environ.get(INSECURE, "").strip().lower() in _YES


def adopt(environ: Mapping[str, str]) -> None:
    """Has this process's own clients trust what its children will."""
    os.environ.update({n: environ[n] for n in (*BUNDLES, *_OFF) if n in environ})
    if is_off(environ):
        from envtune.machine.unverified import sitecustomize

        sitecustomize.verify_nothing()


def problems(bundle: str | None, *, off: bool) -> Iterator[Problem]:
    """A bundle that is no bundle, or one that is set while nothing is verified."""
    if bundle and off:
        yield Problem(INSECURE, f"is true and {CA_BUNDLE} is set; unset one of them")
    elif bundle:
        yield from _unreadable(bundle)


def _unreadable(bundle: str) -> Iterator[Problem]:
    import ssl

    try:
        ssl.create_default_context(cadata=files.read_text(Path(bundle), _LARGEST))
    except (ssl.SSLError, ValueError):
        yield Problem(CA_BUNDLE, f"{bundle} holds no certificate in PEM form")
    except OSError as error:
        yield Problem(CA_BUNDLE, f"{bundle} cannot be read: {error.strerror}")
