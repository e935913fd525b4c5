"""Rows on their way: the same ones back, whether they waited in memory or in a file."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from envtune.engine.data import spill
from envtune.engine.data.types.made import Made

END = 5


@pytest.mark.parametrize("held", [1 << 30, 5000, 0])
def test_rows_come_back_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: Random, held: int
) -> None:
    monkeypatch.setattr(spill, "_HELD", held)
    taken = spill.Spill(tmp_path, 2, 40, cut=False)
    rows = [[dice.randrange(-9, 9) for _ in range(dice.randrange(60))] for _ in range(450)]
    for first in range(0, 450, 50):
        some = rows[first : first + 50]
        flat = np.array([number for row in some for number in row], np.int32)
        splits = np.cumsum([0, *map(len, some)], dtype=np.int64)
        taken.add(Made(flat, splits, frozenset({END})))
    found = taken.close()
    order = np.array(dice.sample(range(450), 450))
    back = []
    for flat, lengths in found.read(order):
        ends = np.cumsum(lengths).tolist()
        back += [flat[a:b].tolist() for a, b in zip([0, *ends], ends, strict=False)]
    kept = [row if 2 <= len(row) <= 40 else [] for row in rows]
    assert back == [kept[i] for i in order]
    trained = [[n for n in row if n >= 0] for row in kept]
    assert found.table["trained"].tolist() == [len(row) for row in trained]
    assert found.table["closed"].tolist() == [not row or row[-1] == END for row in trained]
