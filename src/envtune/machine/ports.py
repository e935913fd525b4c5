"""Whether a port can be listened on."""

import errno
import ipaddress
import socket

HIGHEST = 65535


def in_use(host: str, port: int) -> str:
    """Why nobody can listen there, in words, or nothing."""
    if not 0 < port <= HIGHEST:
        return f"is no port; allowed are 1 to {HIGHEST}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        return f"of {host} is in use" if taken else f"of {host}: {error.strerror}"
    except ValueError as error:
        return f"of {host!r}: {error}"  # no name of a host, not even a wrong one
    return ""


def beyond_loopback(host: str) -> bool:
    """Whether others than this machine reach what listens on a name or an address. A name that
    leads nowhere is not known to be this machine's."""
    try:
        found = socket.getaddrinfo(host, None) if host else []
    except (OSError, ValueError):
        found = []
    addresses = {str(sockaddr[0]) for *_, sockaddr in found}
    return not addresses or not all(ipaddress.ip_address(a).is_loopback for a in addresses)


def free() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
