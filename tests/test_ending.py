"""What becomes of a container when its work is over: RunPod's pod is ended, and read back.

No test here trains: a wrong variable is a failure, and `finish` tells of any other end.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import runpod_standin
from tests.harness import Entrypoint, Result, clean_environ, execute
from tests.runpod_standin import KEY, POD, RunPod


@pytest.fixture
def runpod() -> Iterator[RunPod]:
    with runpod_standin.running() as made:
        yield made


def finish(folder: Path, code: int, environ: dict[str, str]) -> Result:
    return Entrypoint(folder, environ).run("envtune", "finish", str(code))


ENDS = [
    (0, {"SFT_ON_FINISH": "stop"}, ["podStop", "pod"]),
    (0, {"SFT_ON_FINISH": "terminate"}, ["podTerminate", "pod"]),
    (0, {"SFT_ON_FAIL": "stop"}, []),
    (3, {"SFT_ON_FINISH": "terminate"}, []),
    (3, {"SFT_ON_FAIL": "stop"}, ["podStop", "pod"]),
    (7, {}, ["podStop", "pod"]),
    (7, {"SFT_ON_FAIL": "exit"}, []),
    (143, {"SFT_ON_FAIL": "stop"}, []),
]
_STATUS = {"podStop": "EXITED", "podTerminate": "TERMINATED"}


@pytest.mark.parametrize(("code", "settings", "asked"), ENDS)
def test_an_end_asks_for_what_the_settings_say_and_keeps_its_code(
    code: int, settings: dict[str, str], asked: list[str], runpod: RunPod, tmp_path: Path
) -> None:
    result = finish(tmp_path, code, {**runpod.environ, **settings})
    assert result.code == code, result.err
    assert runpod.asked == asked
    assert runpod.status == (_STATUS[asked[0]] if asked else "RUNNING")
    assert KEY not in result.err + result.out


def test_a_wrong_variable_stops_the_pod_too(runpod: RunPod, tmp_path: Path) -> None:
    told = tmp_path / "told"
    start = Entrypoint(tmp_path, {**runpod.environ, "AXOLOTL_LORA_R": "x"})
    result = start.run(SFT_ON_FAIL="stop", TERMINATION_LOG_FILE=str(told))
    assert result.code == 1
    assert runpod.status == "EXITED"
    assert "AXOLOTL_LORA_R" in told.read_text()


def test_a_key_from_a_file_that_is_gone_is_told_and_the_container_exits(
    runpod: RunPod, tmp_path: Path
) -> None:
    environ = {**runpod.environ, "RUNPOD_API_KEY": "", "RUNPOD_API_KEY_FILE": "/none"}
    result = finish(tmp_path, 3, {**environ, "SFT_ON_FAIL": "stop"})
    assert result.code == 3
    assert "stop: RunPod's variables do not tell what to end" in result.err


FAULTS = {
    **{status: f"answers with status {status}" for status in ("500", "401", "302")},
    "cut": "cannot be asked (IncompleteRead",
    **dict.fromkeys(("[]", "{}", '{"errors": ["no"]}'), "answers something else"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stop_that_fails_is_told_loudly_and_asked_for_again(
    fault: str, runpod: RunPod, tmp_path: Path
) -> None:
    runpod.faults = [fault]
    result = finish(tmp_path, 0, {**runpod.environ, "SFT_ON_FINISH": "stop"})
    assert result.code == 0
    [line] = [line for line in result.err.splitlines() if "STILL RUNS AND BILLS" in line]
    assert POD in line
    assert FAULTS[fault] in line
    assert " ERROR " in line
    assert runpod.status == "EXITED"


def test_a_stop_is_believed_only_when_it_is_read_back(runpod: RunPod, tmp_path: Path) -> None:
    """RunPod takes the mutation and does nothing; it is asked about the pod until it does."""
    runpod.deaf = 1
    environ = {**runpod.environ, "SFT_ON_FINISH": "stop"}
    start = Entrypoint(tmp_path, environ).start("envtune", "finish", "0")
    start.until(lambda: runpod.asked.count("pod") >= 3)
    assert start.process.poll() is None
    runpod.status = "EXITED"
    assert start.wait().code == 0


def test_a_pod_that_its_key_may_not_read_is_ended_on_the_word_of_the_mutation(
    runpod: RunPod, tmp_path: Path
) -> None:
    runpod.faults = ["", "errors"]
    result = finish(tmp_path, 0, {**runpod.environ, "SFT_ON_FINISH": "stop"})
    assert (result.code, runpod.asked) == (0, ["podStop", "pod"])
    assert "cannot be read back" in result.err


def test_a_key_that_is_refused_is_told_before_anything_is_trained(
    runpod: RunPod, entrypoint: Entrypoint
) -> None:
    runpod.faults = ["401", "401"]
    place = {"SFT_OUTPUTS_DIR": str(entrypoint.folder), "SFT_LOGS_DIR": str(entrypoint.folder)}
    result = entrypoint.run("envtune", "check", SFT_ON_FINISH="stop", **place, **runpod.environ)
    assert result.code == 4
    assert "RUNPOD_API_KEY: may not end this pod" in result.err


def test_sigterm_ends_the_tries_with_the_code_of_the_run(tmp_path: Path) -> None:
    environ = {"RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY, "SFT_ON_FAIL": "terminate"}
    environ["RUNPOD_API_BASE_URL"] = "http://127.0.0.1:9"
    start = Entrypoint(tmp_path, environ).start("envtune", "finish", "5")
    start.until_said("STILL RUNS AND BILLS")
    assert start.process.poll() is None
    start.signal()
    result = start.wait()
    assert result.code == 5
    assert "Connection refused" in result.err


EARLY = {
    "in the verb": "main.VERBS['finish'] = lambda args: stop()",
    "after it": "main.finish.act = lambda *a, act=main.finish.act: (stop(), act(*a))",
}


@pytest.mark.parametrize("moment", EARLY.values(), ids=EARLY.keys())
def test_sigterm_before_the_first_try_leaves_the_pod_to_who_stopped_it(
    moment: str, runpod: RunPod, tmp_path: Path
) -> None:
    script = (
        "import signal, sys\n"
        "from envtune import __main__ as main\n"
        "def stop():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        f"{moment}\n"
        "sys.exit(main.main(['finish', '5']))"
    )
    environ = clean_environ(**runpod.environ, SFT_ON_FAIL="stop")
    result = execute([sys.executable, "-c", script], tmp_path, environ)
    assert result.code == 5, result.err
    assert runpod.asked == []


def test_idle_after_a_failure_says_what_is_true_and_stays(tmp_path: Path) -> None:
    start = Entrypoint(tmp_path, {"SFT_ON_FAIL": "idle", "AXOLOTL_LORA_R": "x"}).start()
    start.until_said("SFT_ON_FAIL: idle")
    assert start.process.poll() is None
    start.signal()
    result = start.wait()
    assert result.code == 1
    assert "the settings are refused" in result.err


REFUSED = [
    ({"SFT_ON_FINISH": "stop"}, "SFT_ON_FINISH: stop needs RunPod's RUNPOD_POD_ID"),
    ({"SFT_ON_FAIL": "terminate"}, "SFT_ON_FAIL: terminate needs RunPod's"),
    ({"SFT_ON_FAIL": "halt"}, "SFT_ON_FAIL: 'halt' is not allowed"),
    ({"SFT_MAX_HOURS": "0"}, "SFT_MAX_HOURS: '0' is not allowed"),
    ({"SFT_MAX_USD": "5"}, "SFT_MAX_USD: needs a price"),
]


@pytest.mark.parametrize(("change", "line"), REFUSED)
def test_what_cannot_be_done_at_the_end_is_refused_at_the_start(
    change: dict[str, str], line: str, entrypoint: Entrypoint
) -> None:
    result = entrypoint.run(**change)
    assert result.code == 1
    assert line in result.err


def test_a_server_that_was_stopped_ends_well_and_its_pod_is_left_to_who_stopped_it(
    runpod: RunPod, tmp_path: Path
) -> None:
    """The verb here stands for a server: it is stopped, drains and returns 0."""
    script = (
        "import signal, sys\n"
        "from envtune import __main__ as main\n"
        "from envtune.supervise.signals import StopSignals\n"
        "def serve(args):\n"
        "    stops = StopSignals().install()\n"
        "    signal.raise_signal(signal.SIGTERM) if 'stop' in sys.argv else None\n"
        "    return main.Exit.DONE, 'drained'\n"
        "main.VERBS['serve'] = serve\n"
        "sys.exit(main.main(['serve']))"
    )
    for words, asked in (["stop"], []), ([], ["podStop", "pod"]):
        environ = clean_environ(**runpod.environ, SFT_ON_FINISH="stop")
        result = execute([sys.executable, "-c", script, *words], tmp_path, environ)
        assert result.code == 0, result.err
        assert runpod.asked == asked
