"""What Axolotl takes is taken, and what comes of nothing is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from envtune.errors import Refused
from envtune.settings import axolotl_keys, given, passed_over, sources
from envtune.settings.typed import Settings
from tests.unit.builders import MODEL_AND_DATA

ROWS = [{"path": "acme/rows", "type": "alpaca"}]
BARE = {"base_model": "acme/tiny", "datasets": ROWS}


def of_file(folder: Path, **keys: Any) -> Settings:
    """The settings of a file in Axolotl's own names."""
    file = folder / "axolotl.json"
    file.write_text(json.dumps(BARE | keys))
    read = sources.read((), {"SFT_TRAINER_CONFIG_JSON_PATH": str(file)})
    return given.settings(sources.with_documents(read))


def of_variables(**keys: str) -> Settings:
    return given.settings(
        sources.read((), MODEL_AND_DATA | {f"AXOLOTL_{k}": v for k, v in keys.items()})
    )


def plain(settings: Settings) -> dict[str, Any]:
    return {key: setting.value for key, setting in settings.axolotl.items()}


def test_no_name_that_is_said_to_be_dropped_is_one_of_axolotls() -> None:
    assert not passed_over.DROPPED.keys() & axolotl_keys.schema().fields.keys()
    assert passed_over.OURS.keys() <= axolotl_keys.schema().fields.keys()
    today = {name for name in passed_over.DROPPED.values() if name}
    assert today <= axolotl_keys.schema().fields.keys()


def test_an_empty_key_of_a_file_is_one_that_is_not_set(tmp_path: Path) -> None:
    settings = of_file(
        tmp_path, lora_r=None, dataset_prepared_path=None, debug=None, wandb_project=None
    )
    assert plain(settings) == plain(of_file(tmp_path))
    assert not settings.warnings


def test_an_empty_adapter_of_a_file_trains_all_weights_as_in_axolotl(tmp_path: Path) -> None:
    assert plain(of_file(tmp_path, adapter=None))["adapter"] is None


@pytest.mark.parametrize("key", passed_over.OURS)
def test_what_envtune_sees_to_itself_is_passed_over_and_told(tmp_path: Path, key: str) -> None:
    value = "prepared" if key.endswith("path") else True
    for settings in (of_file(tmp_path, **{key: value}), of_variables(**{key.upper(): str(value)})):
        assert key not in settings.axolotl
        assert [note for note in settings.notes if key in note.lower() and "passed over" in note]
    assert not of_file(tmp_path, **{key: None}).notes


def test_a_name_that_axolotl_drops_is_told_with_what_says_it_today(tmp_path: Path) -> None:
    [line] = of_file(tmp_path, adam_eps=1e-9).warnings
    assert line.endswith("adam_eps: Axolotl has no such key and drops it; it has adam_epsilon")
    assert "drops it" in of_variables(GPTQ_GROUPSIZE="128").warnings[0]


def test_a_name_that_nobody_knows_is_told_in_a_file_and_refused_as_a_variable(
    tmp_path: Path,
) -> None:
    [line] = of_file(tmp_path, qqq_house_brand=1).warnings
    assert "qqq_house_brand: Axolotl has no such key and drops it" in line
    with pytest.raises(Refused, match="QQQ_HOUSE_BRAND"):
        of_variables(QQQ_HOUSE_BRAND="1")


@pytest.mark.parametrize(
    "name",
    ["learnin_rate", "context_parapllel_size", "dataset", "max_step", "eval_set_size", "lora_rr"],
)
def test_a_slip_is_refused_in_a_file_too(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="did you mean"):
        of_file(tmp_path, **{name: 1})


def test_another_tools_word_for_what_a_file_has_to_say_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "axolotl.json"
    file.write_text('{"base_model": "acme/tiny", "dataset_path": "acme/rows"}')
    read = sources.read((), {"SFT_TRAINER_CONFIG_JSON_PATH": str(file)})
    with pytest.raises(Refused, match="dataset_path: no such setting; did you mean datasets"):
        given.settings(sources.with_documents(read))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lora_rank", "lora_r"),
        ("epochs", "num_epochs"),
        ("use_rslora", "peft_use_rslora"),
        ("wandb_run_name", "wandb_name"),
        ("val_datasets", "test_datasets"),
        ("use_auth_token", "hf_use_auth_token"),
    ],
)
def test_another_name_is_dropped_as_axolotl_does_and_told_with_the_one_that_it_has(
    tmp_path: Path, name: str, meant: str
) -> None:
    [line] = of_file(tmp_path, **{name: 1}).warnings
    assert line.endswith(f"{name}: Axolotl has no such key and drops it; did you mean {meant}?")
    with pytest.raises(Refused, match=f"did you mean AXOLOTL_{meant.upper()}"):
        of_variables(**{name.upper(): "1"})


@pytest.mark.parametrize("key", ["fix_untrained_tokens", "kd_trainer"])
def test_a_switch_that_axolotl_types_as_a_number_is_taken_as_one(tmp_path: Path, key: str) -> None:
    for settings in (of_file(tmp_path, **{key: True}), of_variables(**{key.upper(): "true"})):
        assert plain(settings)[key] is True


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("revision_of_model", "model_revision", "v2"),
        ("type_of_model", "model_type", "LlamaForCausalLM"),
        ("overrides_of_model_config", "model_config", {"rope_theta": 1.0}),
        ("overrides_of_model_kwargs", "model_kwargs", {"foo": 1}),
    ],
)
def test_axolotls_inner_names_for_a_key_say_the_same(
    tmp_path: Path, old: str, new: str, value: Any
) -> None:
    assert plain(of_file(tmp_path, **{old: value}))[new] == value


def test_a_repository_that_is_still_to_be_filled_in_is_told_and_nothing_is_published(
    tmp_path: Path,
) -> None:
    settings = of_file(tmp_path, hub_model_id="<your-hub-model-id>")
    assert not settings.problems
    assert "SFT_PUSH_TO" not in settings.own
    assert settings.notes[-1].endswith("is to be filled in; nothing is published")


def test_a_file_that_is_not_axolotls_gets_no_such_grace(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"qqq_house_brand": 1}')
    read = sources.read((), MODEL_AND_DATA | {"SFT_TRAINER_CONFIG_JSON_PATH": str(file)})
    with pytest.raises(Refused, match="qqq_house_brand"):
        given.settings(sources.with_documents(read))


OLD = {
    "fsdp_version": 2, "fsdp_offload_params": False, "fsdp_sharding_strategy": "FULL_SHARD",
    "limit_all_gathers": True, "fsdp_state_dict_type": "SHARDED_STATE_DICT",
}  # fmt: skip


def test_fsdps_old_words_are_taken_in_both_ways(tmp_path: Path) -> None:
    new = {"fsdp_version": 2, "offload_params": False, "state_dict_type": "SHARDED_STATE_DICT"}
    dropped = {"sharding_strategy": "FULL_SHARD", "limit_all_gathers": True}
    by_variable = of_variables(FSDP_CONFIG=json.dumps(OLD))
    for settings in (of_file(tmp_path, fsdp_config=OLD), by_variable):
        assert plain(settings)["fsdp_config"] == new | dropped
        assert any("fsdp_sharding_strategy, limit_all_gathers" in w for w in settings.warnings)
        assert any("is deprecated; taken as fsdp_config" in w for w in settings.warnings)


def test_what_is_dropped_inside_is_told_for_a_file_and_refused_for_a_variable(
    tmp_path: Path,
) -> None:
    rows = [{"path": "acme/rows", "type": "alpaca", "house_weight": 2}]
    [line] = of_file(tmp_path, datasets=rows).warnings
    assert line.endswith("datasets: Axolotl reads no house_weight there and drops it")
    with pytest.raises(Refused, match="house_weight"):
        of_variables(TRL='{"house_weight": 2}')


@pytest.mark.parametrize(
    "row",
    [
        {"path": "a/b", "type": "stepwise_supervised", "step_separator": "\n"},
        {
            "path": "a/b",
            "type": "chat_template.default",
            "field_chosen": "c",
            "field_rejected": "r",
        },
    ],
)
def test_the_columns_of_a_reward_models_rows_are_known(tmp_path: Path, row: dict[str, Any]) -> None:
    assert plain(of_file(tmp_path, datasets=[row]))["datasets"] == [row]
