"""Named sets of values: each is a valid configuration, and the user's value wins."""

from typing import Any

import pytest

from envtune.machine.hardware import Machine
from envtune.resolve.rules import resolve
from envtune.settings import loading, sources
from envtune.settings.own import OWN
from envtune.settings.own.profiles import PROFILES
from envtune.settings.typed import Settings
from tests.unit.builders import AMPERE, CPU, MODEL_AND_DATA, TURING, here, make_facts, of_settings

OTHER = {"adapter": "lora", "bf16": "auto", "fp16": "null"}


def load(profile: str, **more: str) -> Settings:
    environ = {**MODEL_AND_DATA, "SFT_PROFILE": profile, **more}
    return loading.load(sources.with_documents(sources.read(environ=environ)))


def resolved(profile: str, machine: Machine = CPU, **more: str) -> dict[str, Any]:
    return resolve(load(profile, **more), make_facts(machine)).plain()


@pytest.mark.parametrize("machine", [CPU, AMPERE, TURING], ids=["cpu", "ampere", "turing"])
@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_is_a_valid_configuration_everywhere(profile: str, machine: Machine) -> None:
    found, facts = load(profile), make_facts(machine)
    assert not of_settings(found)
    assert not here(found, facts)
    plain = resolve(found, facts).plain()
    wanted = {key: value for key, value in PROFILES[profile].items() if key not in OWN}
    assert {key: plain[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("profile", "key"), [(name, key) for name, keys in PROFILES.items() for key in keys]
)
def test_the_users_value_always_wins_over_a_profile(profile: str, key: str) -> None:
    old = PROFILES[profile][key]
    if isinstance(old, bool) and key not in OTHER:
        text = str(not old).lower()
    else:
        text = OTHER.get(key, "WARNING" if key == "SFT_LOG_LEVEL" else "3")
    name = key if key in OWN else f"AXOLOTL_{key.upper()}"
    found = load(profile, **{name: text})
    setting = found.own[key] if key in OWN else found.axolotl[key]
    assert (setting.name, setting.value != old) == (name, True)
    assert not of_settings(found)


@pytest.mark.parametrize("machine", [CPU, AMPERE])
def test_debug_takes_sixteen_rows_in_full_precision(machine: Machine) -> None:
    plain = resolved("debug", machine)
    assert (plain["bf16"], plain["fp16"], plain["num_epochs"]) == (False, False, 1)
    assert plain["datasets"][0]["split"] == "train[:16]"
    assert resolved("debug", SFT_SAMPLE_SIZE="9")["datasets"][0]["split"] == "train[:9]"


def test_memory_tight_means_four_bits_until_another_method_is_asked_for() -> None:
    assert resolved("memory-tight", AMPERE)["load_in_4bit"] is True
    assert not resolved("memory-tight", AMPERE, AXOLOTL_ADAPTER="lora").get("load_in_4bit")
    assert not resolved("memory-tight", AMPERE, AXOLOTL_ADAPTER="null").get("load_in_4bit")


def test_a_length_of_the_users_replaces_the_profiles_in_either_unit() -> None:
    assert "max_steps" not in resolved("minimal", AXOLOTL_NUM_EPOCHS="3")
    assert "num_epochs" not in resolved("debug", AXOLOTL_MAX_STEPS="3")


def test_a_profile_is_shown_as_the_source_of_its_values() -> None:
    config = resolve(load("minimal"), make_facts())
    assert config.axolotl["max_steps"].source == "SFT_PROFILE: max_steps"


def test_an_unknown_profile_is_told_with_all_there_are() -> None:
    with pytest.raises(loading.Refused) as caught:
        load("rtx3080")
    [line] = [str(problem) for problem in caught.value.problems]
    assert all(name in line for name in PROFILES)
