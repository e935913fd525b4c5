"""Small inputs that people brought, as they are: each through `check`, as its row expects.

They lie beside the checkout, where there are any. What concerns rows of data is looked at with
the data itself.
"""

import json
import shutil
from pathlib import Path

import pytest

from envtune.cli import configuration
from envtune.errors import Refused
from tests.harness import SHARED, clean_environ

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the checkout")

# The code, and words of what is said: of the refusal, or of the warnings where it is valid.
ENVIRONMENTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "01-quoted": (1, ("AXOLOTL_BASE_MODEL: is wrapped in quotes, which --env-file keeps",)),
    "01b-quoted-text": (
        1,
        ("AXOLOTL_DATASETS__0__PATH: is wrapped", "SFT_OUTPUTS_DIR: is wrapped"),
    ),
    "01c-quoted-silent": (1, ("SFT_OUTPUTS_DIR: is wrapped", "AXOLOTL_WANDB_PROJECT: is wrapped")),
    "chats/quoted": (1, ("AXOLOTL_BASE_MODEL: is wrapped",)),
    "58-export-prefix": (1, ("write AXOLOTL_BASE_MODEL=...",)),
    "57-trailing-comma": (0, ("AXOLOTL_LORA_R ends in a comma",)),
    "59-lowercase": (1, ("did you mean AXOLOTL_BASE_MODEL?",)),
    "04-target-regex": (0, ()),
    "05-target-wrong": (0, ("query_key_value fits no layer", "q_proj")),
    "07-valset-toobig": (3, ("AXOLOTL_VAL_SET_SIZE: 2000 holds back",)),
    "08-padtoken-new": (0, ()),
    "11-dpo-wrongtype": (3, ("AXOLOTL_DATASETS: chatml.intel reads question",)),
    "12-dpo-notype": (0, ()),
    "13-dpo-userdef": (0, ()),
    "15-kto": (3, ("AXOLOTL_DATASETS: chatml.argilla reads instruction",)),
    "16-orpo": (0, ()),
    "17-grpo": (0, ()),
    "18-deepspeed-path": (1, ("AXOLOTL_DEEPSPEED: ", "is not there")),
    "19-deepspeed-inline": (0, ()),
    "21-nproc-visible": (0, ()),
    "29-path-json": (3, ("AXOLOTL_DATASETS: json is a reader of the datasets library",)),
    "30b-datafiles-cwd": (0, ()),
    "35-sharegpt-type": (3, ("AXOLOTL_DATASETS: sharegpt is gone",)),
    "40-old-fields": (0, ()),
    "51-ct-name": (1, ("AXOLOTL_CHAT_TEMPLATE: ", "did you mean llama3?")),
    "56-runpod-doc": (1, ("AXOLOTL_PEFT: ",)),
    "66-both-targets": (0, ()),
    "68-index-gap": (1, ("AXOLOTL_DATASETS__3__PATH: ", "the next index, 2")),
    "69-jinja-none": (1, ("AXOLOTL_CHAT_TEMPLATE: needs AXOLOTL_CHAT_TEMPLATE_JINJA",)),
    "70-jinja-broken": (1, ("AXOLOTL_CHAT_TEMPLATE_JINJA: is no Jinja at line 1",)),
    "63-fms-response-template-nomatch": (0, ()),
    "20-fsdp1": (0, ()),
    "55-axolotl-fsdp": (0, ()),
    "pipelines/04-fsdp2-8bit-optimizer": (0, ()),
    "pipelines/08-plugin-typo": (1, ("did you mean axolotl.integrations.liger.LigerPlugin?",)),
    "pipelines/09-deepspeed-missing-file": (1, ("AXOLOTL_DEEPSPEED: ", "is not there")),
}
FILES: dict[str, tuple[int, tuple[str, ...]]] = {
    "pipelines/11-pretraining-local-path.yaml": (0, ()),
    "pipelines/torchtune.yaml": (1, ("is a file of torchtune",)),
}
# Taken whole where there is the GPU that they were written for.
ON_A_GPU = ("10-topsail-fms", "10b-topsail-fms", "61-fms-lora", "62-debug-null", "32-csv-alpaca")
# Nothing is wrong with these but that the Hub, which has their models, is not asked.
OF_THE_HUB = (
    "01-dataset_prepared_path-blank.yaml", "02-evals_per_epoch-val0.yaml", "03-fsdp-prefix.yaml",
    "06-blank-or-one.yaml", "s1_config.yaml", "s1_debug.yaml", "chain.yaml",
)  # fmt: skip
PACKED = {"44-quant-gptq": "gptq", "44-quant-awq": "awq"}


@pytest.fixture
def place(tmp_path: Path, embedded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the cases name: demo/ and cases/."""
    (tmp_path / "demo").symlink_to(embedded)
    (tmp_path / "cases").symlink_to(CASES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path) -> dict[str, str]:
    """The variables of an env file, as --env-file reads it."""
    lines = path.read_bytes().decode().split("\n")
    kept = (line.lstrip() for line in lines if line.strip())
    pairs = (line.partition("=") for line in kept if not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def check(environ: dict[str, str], code: int, words: tuple[str, ...]) -> None:
    try:
        made = configuration.configure(environ=clean_environ(SFT_DEVICE="cpu") | environ)
        found, lines = 0, "\n".join(made.config.warnings)
    except Refused as refused:
        found, lines = int(refused.exit), "\n".join(map(str, refused.problems))
    assert found == code, lines
    for word in words:
        assert word in lines


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_ends_as_expected(name: str, place: Path) -> None:
    environ = read(CASES / f"{name}.env")
    if "SFT_PRETEND_GPU" in environ:
        environ["SFT_DEVICE"] = "auto"
    check(environ, *ENVIRONMENTS[name])


@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_job_in_use_is_taken_whole(name: str, place: Path) -> None:
    gpu = {"SFT_PRETEND_GPU": "h100x1", "SFT_DEVICE": "auto"}
    check(read(CASES / f"{name}.env") | gpu, 0, ())


@pytest.mark.parametrize("name", FILES)
def test_a_file_ends_as_expected(name: str, place: Path) -> None:
    check({"SFT_TRAINER_CONFIG_JSON_PATH": f"cases/{name}"}, *FILES[name])


@pytest.mark.parametrize("name", PACKED)
def test_a_base_that_nothing_here_loads_is_told(name: str, place: Path, embedded: Path) -> None:
    shutil.copytree(embedded / "tiny-llama", place / "out")
    config = json.loads((place / "out/config.json").read_text())
    packed = {"quantization_config": {"quant_method": PACKED[name], "bits": 4}}
    (place / "out/config.json").write_text(json.dumps(config | packed))
    check(read(CASES / f"{name}.env"), 1, (f"is quantised by {PACKED[name]}",))


@pytest.mark.parametrize("name", OF_THE_HUB)
def test_of_a_file_taken_whole_only_the_hubs_models_are_missing(name: str, place: Path) -> None:
    environ = {
        "SFT_TRAINER_CONFIG_JSON_PATH": f"cases/pipelines/{name}", "HF_HUB_OFFLINE": "1",
        "SFT_PRETEND_GPU": "h100x8", "SFT_DEVICE": "auto",
    }  # fmt: skip
    with pytest.raises(Refused) as refused:
        configuration.configure(environ=clean_environ() | environ)
    assert int(refused.value.exit) == 4
    assert all("is not in the cache" in str(problem) for problem in refused.value.problems)
