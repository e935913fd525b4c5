"""Whether a save, as it was measured, fits into what a stop leaves. Pure."""

from collections.abc import Mapping

# What the records after a save take of the grace, seconds.
_RESERVE = 2.0


def fits(seconds: float, grace: float) -> bool:
    """Whether a save of so many seconds ends in time; the rest of a step comes before it."""
    return seconds <= grace - _RESERVE


def line(seconds: float, grace: int, environ: Mapping[str, str]) -> str:
    """What a save takes beside what a stop leaves for it, and what to set where that is less."""
    said = f"a save takes {seconds:.1f} s and a stop leaves {grace} s (SFT_GRACE_SECONDS)"
    if fits(seconds, grace):
        return said
    return (
        f"{said}, so a stop would lose the steps since the last save: set SFT_GRACE_SECONDS and "
        f"{_platform(environ)} above it; where that cannot be, SFT_SAVE_MINUTES bounds what is lost"
    )


def _platform(environ: Mapping[str, str]) -> str:
    """Where the platform is told how long to wait before it kills."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "the pod's terminationGracePeriodSeconds (30 s unless set)"
    return "docker's --stop-timeout (10 s unless set)"
