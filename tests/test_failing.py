"""Trainings that Axolotl itself refuses or that die: one line, the right code, no lost run."""

from pathlib import Path

from tests.harness import Entrypoint


def test_what_axolotl_refuses_is_one_line_without_a_traceback(entrypoint: Entrypoint) -> None:
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (entrypoint.folder / "bad.jsonl").write_text(f'{row}\n{{"messages": "nonsense"}}\n')
    told = entrypoint.folder / "termination"
    bad = {"AXOLOTL_DATASETS__0__PATH": "bad.jsonl", "SFT_PREPARE": "axolotl"}
    start = entrypoint.start(TERMINATION_LOG_FILE=str(told), **bad)
    result = start.wait()
    assert result.code == 3, result.err[-3000:]
    assert "the data could not be read" in told.read_text()
    assert len(told.read_text().splitlines()) == 1
    assert "Traceback" not in result.err
    assert not start.left_over()
    assert not list(entrypoint.folder.glob("outputs/*/.complete"))


def test_a_full_disk_is_worth_a_retry(entrypoint: Entrypoint, tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: the same error at the same write."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        start = entrypoint.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    result = start.wait()
    assert result.code == 200, result.err[-3000:]
    assert not list(tmp_path.glob("outputs/*/.complete"))
    assert not list(tmp_path.glob("outputs/*/adapter"))
