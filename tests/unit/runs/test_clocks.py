"""A lease of a machine whose clock is another's, or that was set while somebody waits."""

import json
import os
import time
from pathlib import Path

import pytest

from envtune.runs import lease
from envtune.runs.contents import LEASE

HOUR = 3600.0


def held_elsewhere(folder: Path, ahead: float) -> None:
    """A lease of another machine, whose clock is so many seconds ahead of the volume's."""
    told = {"machine": "another", "host": "node-1", "pid": 7, "stamp": "7:7"}
    (folder / LEASE).write_text(json.dumps(told))
    os.utime(folder / LEASE, (time.time() + ahead,) * 2)


@pytest.mark.parametrize("ahead", [0.0, HOUR, 24 * HOUR, -0.3])
def test_a_dead_lease_is_taken_after_its_time_however_far_its_clock_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monkeypatch.setattr(lease, "STALE", 1.0)
    held_elsewhere(tmp_path, ahead)
    with lease.Lease(tmp_path) as taken:
        assert json.loads((tmp_path / LEASE).read_text())["pid"] == os.getpid()
    assert taken.done.is_set()


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
def test_a_clock_that_is_set_makes_no_live_lease_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + shift)
    held_elsewhere(tmp_path, 0.0)
    os.utime(tmp_path / LEASE)
    assert lease.holder(tmp_path) == "7:7"


def test_a_lease_that_nobody_touches_is_nobodys(tmp_path: Path) -> None:
    held_elsewhere(tmp_path, -2 * lease.STALE)
    assert lease.holder(tmp_path) == ""
