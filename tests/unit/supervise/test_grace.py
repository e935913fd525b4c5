"""A save beside the grace."""

import pytest

from envtune.supervise import grace, ranks


@pytest.mark.parametrize(
    ("seconds", "limit", "environ", "said"),
    [
        (0.1, 25, {}, None),
        (23.0, 25, {}, None),
        (23.1, 25, {}, "docker's --stop-timeout"),
        (40.0, 30, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "terminationGracePeriodSeconds"),
    ],
)
def test_a_save_that_does_not_fit_says_what_to_set(
    seconds: float, limit: int, environ: dict[str, str], said: str | None
) -> None:
    line = grace.line(seconds, limit, environ)
    assert line.startswith(f"a save takes {seconds:.1f} s and a stop leaves {limit} s")
    assert grace.fits(seconds, limit) == (said is None)
    assert said is None or (said in line and "SFT_SAVE_MINUTES" in line)


TABLE = """
Failures:
[1]:
  time      : 2026-11-27_12:00:00
  rank      : 0 (local_rank: 0)
  exitcode  : {first} (pid: 41)
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : {cause} (pid: 42)
"""


@pytest.mark.parametrize(
    ("first", "cause", "lost"),
    [
        (1, -9, "rank 1 (process 42) was ended by SIGKILL"),
        (-6, -9, "rank 1 (process 42) was ended by SIGKILL"),
        (-9, 1, "rank 0 (process 41) was ended by SIGKILL"),
        (-15, 1, ""),  # torchrun's own, to those that were left
        (1, 1, ""),
    ],
)
def test_a_rank_that_a_signal_ended_is_named(first: int, cause: int, lost: str) -> None:
    assert ranks.lost(TABLE.format(first=first, cause=cause).splitlines()) == lost
