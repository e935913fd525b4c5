"""A run's result where it is published, its model card, and what a start knows beforehand."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from envtune.transfer.stores import Objects
from tests.harness import (
    NOWHERE,
    Entrypoint,
    Result,
    Start,
    clean_environ,
    contents,
    envtune,
    kill,
    read,
)  # fmt: skip
from tests.hub_standin import Hub
from tests.stores import ADA, READER, requests


@pytest.fixture
def finished_training(lora: Path, tmp_path: Path) -> Path:
    """A run that was trained and exported and has not been published yet."""
    run = tmp_path / "outputs" / lora.name
    shutil.copytree(lora, run)
    (run / ".complete").unlink()
    return run


def wanting(run: Path, **settings: Any) -> Path:
    """The run with settings of its own."""
    path = run / "config" / "resolved.json"
    told = read(path)
    for name, value in settings.items():
        told["settings"][name] = {"value": value, "source": name, "reason": ""}
    path.write_text(json.dumps(told))
    return run


def go_on(run: Path, **environ: str) -> Start:
    start = Entrypoint(run.parents[1], {"HF_HUB_OFFLINE": ""})
    return start.start("envtune", "run", "--folder", str(run), **environ)


def reach(hub: Hub, token: str = ADA) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": token}


def test_a_run_goes_to_new_hub_and_to_a_folder_with_a_card_for_each(
    finished_training: Path, new_hub: Hub, tmp_path: Path
) -> None:
    run, to = finished_training, f"file://{tmp_path}/store"
    done = go_on(wanting(run, SFT_PUSH_TO=["ada/new", to]), **reach(new_hub)).wait()
    assert done.code == 0, done.err[-3000:]
    assert "train: done before" in done.err
    assert f"publish: {new_hub.url}/ada/new: 7 files, " in done.err
    stage = read(run / "run.json")["stages"]["publish"]
    assert [place["url"] for place in stage["targets"]] == [
        f"{new_hub.url}/ada/new",
        f"{to}/{run.name}",
    ]
    assert "every published file is there as it was sent" in read(run / ".complete")["checks"]
    assert new_hub.disk is not None
    on_hub, stored = new_hub.disk.folder("ada/new"), tmp_path / "store" / run.name
    for place in (on_hub, stored):
        weights = place / "adapter_model.safetensors"
        assert weights.read_bytes() == (run / "adapter" / weights.name).read_bytes()
        assert read(place / "adapter_config.json")["base_model_name_or_path"] == "tiny-llama"
        for name, content in contents(place).items():
            assert str(tmp_path.parent).encode() not in content, name
            assert ADA.encode() not in content, name
    assert 'from_pretrained(model, "ada/new")' in (on_hub / "README.md").read_text()
    assert f'from_pretrained(model, "{run.name}")' in (stored / "README.md").read_text()
    assert read(run / "adapter" / "adapter_config.json")["base_model_name_or_path"].startswith("/")
    assert not (run / ".publish").exists()
    assert go_on(run, **reach(new_hub)).wait().err.count("already done") == 1


def test_every_run_has_a_card_that_new_hub_would_take(lora: Path, full: Path) -> None:
    for run, library in ((lora, "peft"), (full, "transformers")):
        card = ModelCard.load(run / "README.md")
        assert card.data.to_dict()["library_name"] == library
        assert card.data.license == "other"
        assert card.data.datasets is None
        for machine in (str(run.parent), os.environ.get("HOME", "/root"), "/tmp"):
            assert machine not in card.content
        assert "publish" not in read(run / "run.json")["stages"]


@pytest.mark.parametrize("place", ["chat_template.jinja", "adapter_config.json"])
def test_a_file_with_a_secret_stops_everything(
    place: str, finished_training: Path, new_hub: Hub
) -> None:
    run = wanting(finished_training, SFT_PUSH_TO=["ada/new"])
    file = run / "adapter" / place
    content = file.read_text()
    file.unlink()  # a link to what other tests read
    planted = content.replace("}", '}{# "planted\\/secret" #}', 1)
    if file.suffix == ".json":
        planted = json.dumps({**json.loads(content), "note": "planted/secret"})
    file.write_text(planted.replace("\\/", "/"))
    done = go_on(run, **reach(new_hub), MLFLOW_TRACKING_PASSWORD="planted/secret").wait()
    assert done.code == 6
    line = f"publish failed: {place} holds the secret of MLFLOW_TRACKING_PASSWORD; nothing was sent"
    assert done.lines[-1].endswith(line)
    assert "planted" not in done.err
    assert not requests(new_hub, "POST")
    assert not (run / ".complete").exists()


def test_a_url_with_a_password_does_not_go_out_either(
    finished_training: Path, new_hub: Hub
) -> None:
    run = wanting(finished_training, SFT_PUSH_TO=["ada/new"])
    template = run / "adapter" / "chat_template.jinja"
    template.unlink()
    template.write_text("{# https://ada:pw12@example.org/x #}")
    done = go_on(run, **reach(new_hub)).wait()
    assert done.code == 6
    assert "chat_template.jinja holds a URL with a user or a password" in done.err


def test_a_network_that_stays_away_is_201_and_only_the_push_is_repeated(
    finished_training: Path, new_hub: Hub
) -> None:
    run = wanting(finished_training, SFT_PUSH_TO=["ada/new"])
    lost = go_on(run, HF_ENDPOINT=NOWHERE, HF_TOKEN=ADA).wait()
    assert lost.code == 201
    assert lost.lines[-1].endswith("the next start sends it")
    assert "publish failed: " in lost.err
    assert not (run / ".complete").exists()
    steps = (run / "metrics.jsonl").read_text()
    done = go_on(run, **reach(new_hub)).wait()
    assert done.code == 0, done.err
    assert "export: done before" in done.err
    assert (run / "metrics.jsonl").read_text() == steps


def test_a_token_that_was_taken_away_meanwhile_is_4(finished_training: Path, new_hub: Hub) -> None:
    run = wanting(finished_training, SFT_PUSH_TO=["ada/new"])
    done = go_on(run, **reach(new_hub, READER)).wait()
    assert done.code == 4
    assert "answers 403" in done.err
    assert done.lines[-1].endswith("change that and start again")
    assert READER not in done.err


def test_what_this_run_has_not_is_told_with_what_to_change(
    finished_training: Path, new_hub: Hub
) -> None:
    run = wanting(finished_training, SFT_PUSH_TO=["ada/new"], SFT_PUSH_WHAT="merged")
    done = go_on(run, **reach(new_hub)).wait()
    assert done.code == 1
    assert done.lines[-1].endswith(
        "publish failed: SFT_PUSH_WHAT: the run has no merged/; it has adapter"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_push_that_is_stopped_in_the_middle_goes_on_with_the_next_start(
    number: signal.Signals, finished_training: Path, new_hub: Hub
) -> None:
    """Stopped while the commit hangs: the weights are there, and are not sent again."""
    run = wanting(finished_training, SFT_PUSH_TO=["ada/new"])
    new_hub.faults = [("POST /api/models/ada/new/commit", "hang")]
    start = go_on(run, **reach(new_hub))
    start.until(lambda: bool(requests(new_hub, "POST /api/models/ada/new/commit")))
    if number == signal.SIGTERM:
        start.signal()
    else:
        for pid in start.left_over():
            kill(pid)
    started = time.monotonic()
    assert start.wait().code == 128 + number
    assert time.monotonic() - started < 200, "the whole grace was waited for"
    assert start.gone(0 if number == signal.SIGTERM else 120)
    assert not (run / ".complete").exists()
    done = go_on(run, **reach(new_hub)).wait()
    assert done.code == 0, done.err
    assert len(requests(new_hub, "PUT /lfs/")) == 1
    assert new_hub.disk is not None
    assert len(new_hub.disk.commits) == 1


# --- before training


def _check(folder: Path, settings: dict[str, str], **more: str) -> Result:
    return envtune("check", cwd=folder, environ=clean_environ(**settings, **more))


def test_a_place_that_cannot_be_written_costs_no_training(
    settings: dict[str, str], new_hub: Hub, s3: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    near = {"HF_ENDPOINT": new_hub.url, "HF_HUB_OFFLINE": "", "HF_TOKEN": READER, **s3}
    places = f"ada/new,museum/new,s3://nowhere-{os.getpid()}/x,file://{tmp_path}/file/below"
    done = _check(tmp_path, settings, SFT_PUSH_TO=places, **near)
    assert done.code == 4
    assert [line.split(": ")[:2] for line in done.said] == [
        ["SFT_PUSH_TO", f"s3://nowhere-{os.getpid()}/x"],
        [
            "SFT_PUSH_TO",
            f"{tmp_path}/file/below cannot be written by uid {os.getuid()} ({tmp_path}/file forbids it); mount a writable volume there or name another folder",
        ],
        ["SFT_PUSH_TO", "ada/new"],
        ["SFT_PUSH_TO", "museum/new"],
    ]
    assert "rea is no member of ada" in done.said[2]
    assert "rea may only read in museum" in done.said[3]
    assert not [secret for secret in (READER, s3["AWS_SECRET_ACCESS_KEY"]) if secret in done.err]


def test_a_place_that_can_be_written_is_left_as_it_was(
    settings: dict[str, str],
    new_hub: Hub,
    s3: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near = {"HF_ENDPOINT": new_hub.url, "HF_HUB_OFFLINE": "", "HF_TOKEN": ADA, **s3}
    secret = tmp_path / "secret"
    secret.write_text(near.pop("AWS_SECRET_ACCESS_KEY"))
    places = f"acme/new,s3://bucket/kept,file://{tmp_path}/store"
    done = _check(
        tmp_path, settings, SFT_PUSH_TO=places, AWS_SECRET_ACCESS_KEY_FILE=str(secret), **near
    )
    assert done.code == 0, done.err
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["AWS_ENDPOINT_URL"])
    assert not (tmp_path / "store").exists()
    assert Objects("s3://bucket/kept", s3).listing() == {}
    assert new_hub.disk is not None
    assert not new_hub.disk.root.exists()


def test_a_store_that_does_not_answer_is_told_within_seconds(
    settings: dict[str, str], tmp_path: Path
) -> None:
    started = time.monotonic()
    nowhere = {"AWS_ENDPOINT_URL": NOWHERE, "STORAGE_EMULATOR_HOST": NOWHERE}
    key = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "s3cret-of-ada"}
    done = _check(tmp_path, settings, SFT_PUSH_TO="s3://b/x,gs://b/x,az://b/x", **nowhere, **key)
    assert done.code == 4
    assert "Traceback" not in done.err
    told = [line.removeprefix("SFT_PUSH_TO: ") for line in done.said]
    assert told[0].startswith("s3://b/x: EndpointConnectionError: ")
    assert told[1].startswith("gs://b/x does not answer")
    assert told[2].startswith("az://b/x: ")
    assert "account_name" in told[2]
    assert time.monotonic() - started < 60


def test_an_offline_run_publishes_to_stores_alone(settings: dict[str, str], tmp_path: Path) -> None:
    done = _check(tmp_path, settings, SFT_PUSH_TO="ada/new")
    assert done.said == ["SFT_PUSH_TO: ada/new needs the Hub and HF_HUB_OFFLINE is set"]
    assert _check(tmp_path, settings, SFT_PUSH_TO=f"file://{tmp_path}/store").code == 0
