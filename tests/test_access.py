"""Access before GPU time: each way to be refused is one line of its own, and exit 4."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from tests.harness import NOWHERE, ROOT, Entrypoint, Result, clean_environ, envtune, execute, losses
from tests.hub_standin import Hub, Repo, hub
from tests.stores import user

ADA, FINE, READER = "hf_AdaAda0123456789", "hf_FineFine0123456789", "hf_ReadRead0123456789"


@pytest.fixture
def the_hub(embedded: Path, tmp_path: Path) -> Iterator[Hub]:
    """A Hub with an open, a gated, a private and an empty model, and a data set."""
    rows = tmp_path / "hub-rows"
    rows.mkdir()
    shutil.copy(embedded / "instructions.jsonl", rows / "train.jsonl")
    model, nobody = embedded / "tiny-llama", frozenset[str]()
    with hub() as made:
        made.repos = {
            ("model", "acme/tiny"): Repo(model),
            ("model", "acme/gated"): Repo(model, nobody, "You are not in the authorized list."),
            ("model", "acme/waiting"): Repo(model, nobody, "Your request is awaiting a review."),
            ("model", "acme/fine"): Repo(model, nobody, "Enable it in your fine-grained token."),
            ("model", "acme/private"): Repo(model, frozenset({"ada"})),
            ("model", "acme/rows-only"): Repo(rows),
            ("dataset", "acme/rows"): Repo(rows),
            ("dataset", "acme/gated-rows"): Repo(rows, nobody, "You are not in the list."),
        }
        scopes = [{"entity": {"type": "org", "name": "acme"}, "permissions": ["repo.write"]}]
        made.users = {
            ADA: user("ada", "write"),
            READER: user("ada", "read"),
            FINE: user("ada", "fineGrained", fineGrained={"scoped": scopes}),
        }
        yield made


def _settings(hub: Hub, folder: Path, **more: str) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "",
        "HF_HOME": str(folder / "hf"),
        "AXOLOTL_BASE_MODEL": "acme/tiny",
        "AXOLOTL_DATASETS__0__PATH": "acme/rows",
        "AXOLOTL_DATASETS__0__TYPE": "chat_template",
        "AXOLOTL_SEQUENCE_LEN": "128",
        **more,
    }


def _check(hub: Hub, folder: Path, **more: str) -> Result:
    return envtune("check", cwd=folder, environ=clean_environ(**_settings(hub, folder, **more)))


def _row(result: Result, key: str) -> str:
    """The line of the table about one key."""
    return next(line for line in result.out.splitlines() if line.startswith(f"{key} "))


MODEL, DATA = "AXOLOTL_BASE_MODEL", "AXOLOTL_DATASETS__0__PATH"
TOKENS = "{hub}/settings/tokens"
REFUSED_TOKEN = f"the token was refused by {{hub}}; make a new one on {TOKENS}"
NO_NETWORK = "check the network and HF_ENDPOINT, or give local folders"
NO_TOKEN = "or it is private and HF_TOKEN is not set; check the name, or set HF_TOKEN"
ELSEWHERE = "where there is a network: hf download"
# fmt: off
REFUSED = [
    pytest.param({MODEL: "acme/gated"}, f"AXOLOTL_BASE_MODEL: acme/gated is gated and HF_TOKEN is not set; accept the licence on {{hub}}/acme/gated and set a token of {TOKENS}", id="gated, no token"),
    pytest.param({MODEL: "acme/private"}, f"AXOLOTL_BASE_MODEL: acme/private is no folder here and not on {{hub}}, {NO_TOKEN}", id="private, no token"),
    pytest.param({"HF_TOKEN": "hf_wrong"}, f"HF_TOKEN: {REFUSED_TOKEN}", id="refused token"),
    pytest.param({"HUGGING_FACE_HUB_TOKEN": "hf_wrong"}, f"HUGGING_FACE_HUB_TOKEN: {REFUSED_TOKEN}", id="refused token, old name"),
    pytest.param({"HUGGINGFACE_HUB_TOKEN": "hf_wrong"}, f"HUGGINGFACE_HUB_TOKEN: {REFUSED_TOKEN}", id="refused token, older name"),
    pytest.param({MODEL: "acme/gated", "HF_TOKEN": ADA}, "AXOLOTL_BASE_MODEL: acme/gated is gated and the licence is not accepted by ada; open {hub}/acme/gated and accept it", id="licence"),
    pytest.param({MODEL: "acme/waiting", "HF_TOKEN": ADA}, "AXOLOTL_BASE_MODEL: acme/waiting is gated and the authors have not yet answered the request of ada; see {hub}/acme/waiting", id="licence asked for"),
    pytest.param({MODEL: "acme/fine", "HF_TOKEN": FINE}, f"AXOLOTL_BASE_MODEL: acme/fine is gated and the token of ada may not read gated repositories; allow it on {TOKENS}", id="fine-grained token"),
    pytest.param({DATA: "acme/gated-rows", "HF_TOKEN": ADA}, "AXOLOTL_DATASETS: acme/gated-rows is gated and the licence is not accepted by ada; open {hub}/datasets/acme/gated-rows and accept it", id="licence of data"),
    pytest.param({MODEL: "acme/none", "HF_TOKEN": ADA}, "AXOLOTL_BASE_MODEL: acme/none is no folder here and not on {hub}, or it is private and not for ada; check the name, or ask its owner", id="not found"),
    pytest.param({DATA: "acme/tiny"}, f"AXOLOTL_DATASETS: acme/tiny is no folder here and not on {{hub}}, {NO_TOKEN}", id="a model is no data set"),
    pytest.param({MODEL: "my model"}, "AXOLOTL_BASE_MODEL: 'my model' is no local path and no repository's name", id="no name"),
    pytest.param({MODEL: "acme/rows-only"}, "AXOLOTL_BASE_MODEL: {hub}/acme/rows-only has no config.json, no weights (*.safetensors or pytorch_model*.bin), no tokenizer (tokenizer.json, tokenizer.model, or vocab.json and merges.txt)", id="no model"),
    pytest.param({"AXOLOTL_MODEL_REVISION": "v9"}, "AXOLOTL_MODEL_REVISION: acme/tiny has no revision 'v9'; see {hub}/acme/tiny", id="revision"),
    pytest.param({"AXOLOTL_DATASETS__0__REVISION": "v9"}, "AXOLOTL_DATASETS: acme/rows has no revision 'v9'; see {hub}/datasets/acme/rows", id="revision of data"),
    pytest.param({"HF_ENDPOINT": NOWHERE}, f"AXOLOTL_BASE_MODEL, AXOLOTL_DATASETS: {NOWHERE} cannot be reached (ConnectError); {NO_NETWORK}", id="no network"),
    *(
        pytest.param(switch, f"AXOLOTL_BASE_MODEL: acme/tiny is not in the cache and {name} is set; {ELSEWHERE} acme/tiny\n"
        f"AXOLOTL_DATASETS: acme/rows is not in the cache and {name} is set; {ELSEWHERE} acme/rows --repo-type dataset --local-dir rows, and give that folder", id=f"offline by {name}")
        for name, switch in {n: {n: "1"} for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "SFT_LOCAL_FILES_ONLY")}.items()
    ),
    pytest.param({"HF_HUB_OFFLINE": "1", DATA: "{rows}", "AXOLOTL_MODEL_REVISION": "v2"}, f"AXOLOTL_BASE_MODEL: acme/tiny is not in the cache and HF_HUB_OFFLINE is set; {ELSEWHERE} acme/tiny --revision v2", id="offline, revision"),
    pytest.param({"AXOLOTL_HUB_MODEL_ID": "ada/new"}, f"AXOLOTL_HUB_MODEL_ID: HF_TOKEN is not set; set one of {TOKENS} that may write", id="push, no token"),
    pytest.param({"AXOLOTL_HUB_MODEL_ID": "ada/new", "HF_TOKEN": READER}, f"AXOLOTL_HUB_MODEL_ID: ada/new: the token of ada may only read; see {TOKENS}", id="push, read token"),
    pytest.param({"AXOLOTL_HUB_MODEL_ID": "museum/new", "HF_TOKEN": ADA}, f"AXOLOTL_HUB_MODEL_ID: museum/new: ada may only read in museum; see {TOKENS}", id="push, reader of an organisation"),
    pytest.param({"AXOLOTL_HUB_MODEL_ID": "else/new", "HF_TOKEN": ADA}, f"AXOLOTL_HUB_MODEL_ID: else/new: ada is no member of else; see {TOKENS}", id="push, not a member"),
    pytest.param({"AXOLOTL_HUB_MODEL_ID": "new", "HF_TOKEN": FINE}, f"AXOLOTL_HUB_MODEL_ID: new: the token of ada may not write in ada; see {TOKENS}", id="push, fine-grained token"),
    pytest.param({"AXOLOTL_HUB_MODEL_ID": "ada/new", "HF_TOKEN": "hf_wrong", MODEL: "{model}", DATA: "{rows}"}, f"HF_TOKEN: {REFUSED_TOKEN}", id="push, refused token"),
    pytest.param({"AXOLOTL_HUB_MODEL_ID": "ada/new", "HF_HUB_OFFLINE": "1", MODEL: "{model}", DATA: "{rows}"}, "AXOLOTL_HUB_MODEL_ID: ada/new needs the Hub and HF_HUB_OFFLINE is set", id="push, offline"),
]
# fmt: on


def _with_tokens(the_hub: Hub, embedded: Path, folder: Path, *words: str) -> None:
    """A model whose tokenizer_config.json names its added tokens, as tokenizers of the Hub do."""
    shutil.copytree(embedded / "tiny-llama", folder / "model")
    path = folder / "model" / "tokenizer_config.json"
    told = json.loads(path.read_text())
    told["added_tokens_decoder"] = {str(n): {"content": word} for n, word in enumerate(words)}
    path.write_text(json.dumps(told))
    the_hub.repos["model", "acme/base"] = Repo(folder / "model")


@pytest.mark.parametrize("offline", ["", "1"])
def test_the_end_of_a_turn_that_a_tokenizer_of_the_hub_has_is_trained(
    the_hub: Hub, embedded: Path, tmp_path: Path, offline: str
) -> None:
    _with_tokens(the_hub, embedded, tmp_path, "<s>", "</s>", "<|im_end|>")
    chosen = {MODEL: "acme/base", "AXOLOTL_CHAT_TEMPLATE": "chatml"}
    if offline:
        snapshot_download("acme/base", endpoint=the_hub.url, cache_dir=tmp_path / "hf" / "hub")
        rows = str(embedded / "instructions.jsonl")
        chosen |= {"HF_HUB_OFFLINE": offline, DATA: rows}
    checked = _check(the_hub, tmp_path, **chosen)
    assert checked.code == 0, checked.err
    assert _row(checked, "eot_tokens").split()[1] == "['<|im_end|>']"


def test_the_end_of_a_turn_that_it_has_not_is_refused_before_anything_is_fetched(
    the_hub: Hub, embedded: Path, tmp_path: Path
) -> None:
    _with_tokens(the_hub, embedded, tmp_path, "<s>", "</s>")
    checked = _check(the_hub, tmp_path, **{MODEL: "acme/base", "AXOLOTL_CHAT_TEMPLATE": "chatml"})
    assert checked.code == 3
    assert "chatml ends a turn with <|im_end|>, which the tokenizer would cut" in checked.err


@pytest.mark.parametrize(("settings", "line"), REFUSED)
def test_each_refusal_is_one_line_and_exit_4(
    settings: dict[str, str], line: str, the_hub: Hub, embedded: Path, tmp_path: Path
) -> None:
    places = {
        "{model}": str(embedded / "tiny-llama"),
        "{rows}": str(embedded / "instructions.jsonl"),
    }
    settings = {name: places.get(value, value) for name, value in settings.items()}
    result = _check(the_hub, tmp_path, **settings)
    assert result.said == line.replace("{hub}", the_hub.url).splitlines()
    assert result.code == 4
    assert not [token for token in (ADA, FINE, READER) if token in result.err + result.out]


@pytest.mark.parametrize("trouble", ["429", "503", "close", "hang", "drip"])
def test_a_hub_in_trouble_is_told_within_seconds(
    trouble: str, the_hub: Hub, tmp_path: Path
) -> None:
    the_hub.trouble = trouble
    started = time.monotonic()
    result = _check(the_hub, tmp_path)
    why = {
        "close": "cannot be reached (RemoteProtocolError)",
        "hang": "cannot be reached (ReadTimeout)",
        "drip": "does not answer",
    }.get(trouble, f"answers with status {trouble}")
    names = "AXOLOTL_BASE_MODEL, AXOLOTL_DATASETS"
    assert result.said == [f"{names}: {the_hub.url} {why}; {NO_NETWORK}"]
    assert result.code == 4
    assert time.monotonic() - started < 60


def test_a_network_that_fails_once_is_asked_again(the_hub: Hub, tmp_path: Path) -> None:
    the_hub.trouble, the_hub.troubles = "close", 1
    result = _check(the_hub, tmp_path)
    assert result.code == 0, result.err


def test_several_problems_are_told_at_once_and_a_typo_asks_nobody(
    the_hub: Hub, tmp_path: Path
) -> None:
    result = _check(the_hub, tmp_path, AXOLOTL_BASE_MODEL="acme/gated", **{DATA: "acme/none"})
    assert [line.split(":")[0] for line in result.said] == [MODEL, "AXOLOTL_DATASETS"]
    the_hub.seen.clear()
    assert _check(the_hub, tmp_path, AXOLOTL_LEARNIN_RATE="1").code == 1
    assert _check(the_hub, tmp_path, AXOLOTL_BF16="true").code == 1
    assert the_hub.seen == []


def test_a_password_in_the_endpoint_is_not_shown(the_hub: Hub, tmp_path: Path) -> None:
    endpoint = the_hub.url.replace("://", "://ada:pw12@")
    result = _check(the_hub, tmp_path, HF_ENDPOINT=endpoint)
    assert result.code == 4
    assert the_hub.url in result.err
    assert "pw12" not in result.err


def test_the_models_own_limit_reaches_the_defaults(the_hub: Hub, tmp_path: Path) -> None:
    """The tiny model's 512 tokens are its config.json's, which is on the Hub or in the cache."""
    config = the_hub.repos["model", "acme/tiny"].folder / "config.json"
    told = json.loads(config.read_text()) | {"max_position_embeddings": 64}
    short = tmp_path / "short"
    shutil.copytree(config.parent, short)
    (short / "config.json").write_text(json.dumps(told))
    the_hub.repos["model", "acme/tiny"] = Repo(short)
    result = _check(the_hub, tmp_path, AXOLOTL_SEQUENCE_LEN="")
    assert "64" in _row(result, "sequence_len")
    assert "the model's context" in _row(result, "sequence_len")


def test_what_the_line_says_to_do_offline_is_enough(the_hub: Hub, tmp_path: Path) -> None:
    """Runs the two `hf download` of the lines where there is a network, then checks again."""
    refused = _check(the_hub, tmp_path, HF_HUB_OFFLINE="1")
    commands = re.findall(r"hf (download [^,\n]+)", refused.err)
    assert len(commands) == 2
    environ = clean_environ(**_settings(the_hub, tmp_path))
    for command in commands:
        done = execute([str(ROOT / ".venv/bin/hf"), *command.split()], tmp_path, environ)
        assert done.code == 0, done.err
    the_hub.seen.clear()
    offline = {"SFT_LOCAL_FILES_ONLY": "true", DATA: "./rows"}
    result = _check(the_hub, tmp_path, **offline)
    assert result.code == 0, result.err
    assert the_hub.seen == []
    weights = next((tmp_path / "hf").rglob("model.safetensors"))
    weights.unlink()
    result = _check(the_hub, tmp_path, **offline)
    assert result.code == 4
    assert "acme/tiny is not whole in the cache (" in result.err
    assert "has no weights" in result.err


def test_a_local_files_only_run_with_an_open_hub_is_a_contradiction(
    the_hub: Hub, tmp_path: Path
) -> None:
    result = _check(the_hub, tmp_path, SFT_LOCAL_FILES_ONLY="true", HF_HUB_OFFLINE="0")
    assert result.said == [
        "HF_HUB_OFFLINE: is '0' and SFT_LOCAL_FILES_ONLY is true; unset one of them"
    ]
    assert result.code == 1


def test_a_model_and_data_of_the_hub_are_trained_and_then_trained_offline(
    the_hub: Hub, tmp_path: Path
) -> None:
    """Through the door, from the Hub; from its cache; and from its cache with the Hub gone."""
    settings = _settings(the_hub, tmp_path, AXOLOTL_MAX_STEPS="2", SFT_CACHE_DIR="cache")
    del settings["HF_HOME"]
    start = Entrypoint(tmp_path, settings)
    online = start.train()
    assert list(tmp_path.glob("cache/hub/models--acme--tiny/**/model.safetensors"))
    assert any(line.endswith("model.safetensors") for line in the_hub.seen)
    the_hub.seen.clear()
    offline = start.train(HF_HUB_OFFLINE="1", SFT_RERUN="true")
    assert the_hub.seen == []
    assert offline != online
    assert losses(offline) == losses(online)

    the_hub.trouble = "503"
    away = start.run("envtune", "configure", SFT_RERUN="true")
    assert away.code == 0, away.err
    told = f"{the_hub.url} answers with status 503; acme/tiny is taken from the cache"
    assert f"AXOLOTL_BASE_MODEL: {told}" in away.err
    resolved = Path(away.out.strip()) / "config" / "resolved.json"
    assert json.loads(resolved.read_text())["offline"] is True
