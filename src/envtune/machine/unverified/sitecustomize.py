"""Turns the verification of certificates off for all of Python, where the user insists.

Requests, urllib3, httpx, aiohttp and boto make contexts in ways of their own; all of them
wrap a socket or a memory buffer in the end. Only the standard library is imported, since
this runs at the start of any Python.
"""

import ssl
from collections.abc import Callable
from typing import Any


def verify_nothing() -> None:
    """Has every context drop its checks before it is used. Once is enough."""
    for name in ("wrap_socket", "wrap_bio"):
        method = getattr(ssl.SSLContext, name)
        if not hasattr(method, "verifies_nothing"):
            setattr(ssl.SSLContext, name, _unchecked(method))


def _unchecked(method: Callable[..., Any]) -> Callable[..., Any]:
    def wrap(context: ssl.SSLContext, *arguments: Any, **named: Any) -> Any:
        if not (named.get("server_side") or True in arguments[1:2]):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return method(context, *arguments, **named)

    wrap.verifies_nothing = True  # type: ignore[attr-defined]
    return wrap


if __name__ == "sitecustomize":
    verify_nothing()
