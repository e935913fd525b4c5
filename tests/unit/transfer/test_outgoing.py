"""Which folders of a run go out, and what in them may not."""

import json
from pathlib import Path

import pytest

from envtune.settings.sources import read
from envtune.transfer import outgoing
from envtune.transfer.outgoing import Artifact
from tests.harness import contents
from tests.unit.builders import floats, write_weights


def run(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


CHOICES = [
    (("adapter", "serving/adapter"), "plain", False, "adapter", [""]),
    (("adapter", "serving/adapter"), "embedding-lora", False, "embedding-lora", [""]),
    (("adapter", "serving/adapter", "serving/base"), "resized", False, "resized", ["base", "adapter"]),
    (("adapter", "serving", "merged"), "merged", False, "merged", [""]),
    (("adapter", "serving", "merged", "merged_awq"), "merged", False, "merged", [""]),
    (("adapter", "serving", "merged", "merged_awq"), "merged", True, "merged_awq", [""]),
    (("adapter", "serving/adapter", "merged", "merged_fp8"), "plain", True, "merged_fp8", [""]),
    (("model", "merged_w8a8"), None, True, "merged_w8a8", [""]),
    (("model",), None, False, "model", [""]),
    (("adapter",), None, True, "adapter", [""]),
]  # fmt: skip


@pytest.mark.parametrize(("folders", "made", "awq", "kind", "parts"), CHOICES)
def test_what_serves_is_what_goes_out(
    tmp_path: Path,
    folders: tuple[str, ...],
    made: str | None,
    *,
    awq: bool,
    kind: str,
    parts: list[str],
) -> None:
    export = {"kind": made} if made else {}
    found = outgoing.choose(run(tmp_path, *folders), "auto", export, awq=awq)
    assert (found.kind, list(found.parts)) == (kind, parts)


def test_what_a_run_has_not_is_told_with_what_it_has(tmp_path: Path) -> None:
    folder = run(tmp_path, "adapter", "serving", "merged")
    with pytest.raises(LookupError, match=r"no serving/adapter/; it has adapter, merged$"):
        outgoing.choose(folder, "serving", {"kind": "merged"}, awq=False)


def test_only_the_artifact_goes_out_and_its_paths_do_not(tmp_path: Path) -> None:
    adapter = run(tmp_path, "adapter") / "adapter"
    write_weights(adapter / "adapter_model.safetensors", {"w": floats(1.0)})
    told = {"base_model_name_or_path": "/home/ada/tiny", "r": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(told))
    for name in ("tokenizer.json", "optimizer.pt", "training_args.bin", "debug.log", "rows.jsonl"):
        (adapter / name).write_text("{}")
    outgoing.lay_out(Artifact("adapter", {"": adapter}), "# A card\n", tmp_path / "out")
    laid = contents(tmp_path / "out")
    assert laid.keys() == {
        "README.md", "adapter_model.safetensors", "adapter_config.json", "tokenizer.json",
    }  # fmt: skip
    assert json.loads(laid["adapter_config.json"]) == {**told, "base_model_name_or_path": "tiny"}
    assert json.loads((adapter / "adapter_config.json").read_text()) == told
    assert (tmp_path / "out/adapter_model.safetensors").samefile(
        adapter / "adapter_model.safetensors"
    )


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.json", '{"a": "s3cret\\"of/ada"}', "a.json holds the secret of MY_TOKEN"),
        ("a.jinja", "x s3cret%22of%2Fada", "a.jinja holds the secret of MY_TOKEN"),
        ("a.md", "at https://ada:pw@example.org", "a.md holds a URL with a user or a password"),
        ("a.md", "the password of the proxy: long-proxy-word", "a.md holds the secret of HTTPS_PROXY"),
    ],
)  # fmt: skip
def test_a_secret_is_found_in_every_spelling(
    name: str, text: str, line: str, tmp_path: Path
) -> None:
    environ = {"MY_TOKEN": 's3cret"of/ada', "HTTPS_PROXY": "http://ada:long-proxy-word@proxy"}
    (tmp_path / name).write_text(text)
    assert list(outgoing.leaks(tmp_path, read((), environ).environ)) == [line]


def test_a_secret_in_the_header_of_weights_is_found_and_bytes_of_weights_are_none(
    tmp_path: Path,
) -> None:
    environ = read((), {"MY_TOKEN": "s3cret-of-ada"}).environ
    tensor = ("U8", [13], b"s3cret-of-ada")
    write_weights(tmp_path / "model.safetensors", {"w": tensor})
    assert not list(outgoing.leaks(tmp_path, environ))
    write_weights(tmp_path / "model.safetensors", {"s3cret-of-ada": tensor})
    assert list(outgoing.leaks(tmp_path, environ)) == [
        "model.safetensors holds the secret of MY_TOKEN"
    ]
