"""The committed snapshots say what the installed packages say."""

from envtune.engine import snapshot


def test_the_snapshot_is_what_the_installed_axolotl_has() -> None:
    committed = (snapshot.UPSTREAM / "axolotl.json").read_text()
    assert snapshot.encode(snapshot.derive()) == committed, "run `make generate`"


def test_every_setting_and_every_reserved_variable_is_in_it() -> None:
    derived = snapshot.derive()
    assert len(derived["fields"]) == 390
    assert {"AXOLOTL_DO_NOT_TRACK", "AXOLOTL_NCCL_TIMEOUT"} <= set(derived["reserved"])
