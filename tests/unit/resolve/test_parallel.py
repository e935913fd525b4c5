"""How training spreads, and that accelerate takes every file that says so."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from envtune.machine import rendezvous
from envtune.machine.hardware import Machine
from envtune.machine.rendezvous import Rendezvous
from envtune.render import launch, yaml_files
from envtune.render.launch import Place
from envtune.resolve import accelerate_flags, parallel
from envtune.resolve.config import Parallel, RunConfig
from envtune.resolve.rules import resolve
from envtune.settings import upstream
from tests.unit.builders import AMPERE, CPU, HOPPER, MODEL_AND_DATA, TURING, here, load, make_facts


def of(machine: Machine, gpus: int) -> Machine:
    """The same machine with more GPUs."""
    return replace(machine, gpus=machine.gpus[:1] * gpus)


def decided(
    machine: Machine, environ: Mapping[str, str], file: Mapping[str, Any] | None = None
) -> tuple[Parallel, list[str]]:
    """The layout, and the lines that the user reads."""
    given = load({**MODEL_AND_DATA, **environ})
    where, problems = rendezvous.read(environ, accelerate_flags.given(given))
    problems += accelerate_flags.refusals(given)
    if problems:
        return Parallel(), [str(problem) for problem in problems]
    device = "cuda" if machine.gpus else "cpu"
    layout, problems = parallel.decide(given, machine, device, where, file)
    return layout, [str(problem) for problem in problems]


def configured(
    machine: Machine, environ: Mapping[str, str], file: Mapping[str, Any] | None = None
) -> RunConfig:
    layout, problems = decided(machine, environ, file)
    assert not problems
    facts = replace(make_facts(machine, model_type="llama"), parallel=layout)
    return resolve(load({**MODEL_AND_DATA, **environ}), facts)


FLAGS = "SFT_ACCELERATE_LAUNCH_ARGS"
TWO_NODES = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "train-0"}


@pytest.mark.parametrize(
    ("machine", "environ", "preset", "local", "nodes"),
    [
        (CPU, {}, "single", 1, 1),
        (CPU, {"NPROC": "2"}, "ddp", 2, 1),
        (CPU, {"WORLD_SIZE": "2"}, "ddp", 2, 1),
        (CPU, {"NUM_GPUS": "0"}, "single", 1, 1),
        (CPU, {FLAGS: '{"num_processes": 2}'}, "ddp", 2, 1),
        (CPU, {**TWO_NODES}, "ddp", 1, 2),
        (CPU, {**TWO_NODES, "WORLD_SIZE": "4"}, "ddp", 2, 2),
        (HOPPER, {}, "single", 1, 1),
        (of(HOPPER, 8), {}, "fsdp2", 8, 1),
        (of(HOPPER, 8), {"SFT_ACCELERATE_PRESET": "single"}, "single", 1, 1),
        (of(HOPPER, 8), {"NPROC": "4"}, "fsdp2", 4, 1),
        (of(HOPPER, 8), {"NGPU": "1"}, "single", 1, 1),
        (of(HOPPER, 8), {FLAGS: '{"num-processes": "2"}'}, "fsdp2", 2, 1),
        (of(HOPPER, 8), {"SET_NUM_PROCESSES_TO_NUM_GPUS": "false"}, "single", 1, 1),
        (of(HOPPER, 8), TWO_NODES, "fsdp2", 8, 2),
        (HOPPER, TWO_NODES, "fsdp2", 1, 2),
        (of(HOPPER, 2), {"SFT_ACCELERATE_PRESET": "ddp"}, "ddp", 2, 1),
        (of(HOPPER, 2), {"SFT_ACCELERATE_PRESET": "zero3"}, "zero3", 2, 1),
        (of(HOPPER, 2), {"AXOLOTL_ADAPTER": "qlora"}, "ddp", 2, 1),
        (of(HOPPER, 2), {"AXOLOTL_LOAD_IN_8BIT": "true"}, "ddp", 2, 1),
        (of(HOPPER, 2), {"AXOLOTL_DEEPSPEED": "mine.json"}, "ddp", 2, 1),
        (of(HOPPER, 2), {"AXOLOTL_FSDP_VERSION": "1"}, "ddp", 2, 1),
        (of(HOPPER, 2), {"AXOLOTL_BF16": "false", "AXOLOTL_FP16": "true"}, "ddp", 2, 1),
        (of(TURING, 2), {}, "ddp", 2, 1),
    ],
)  # fmt: skip
def test_the_layout_is_what_is_there_unless_the_user_says_more(
    machine: Machine, environ: dict[str, str], preset: str, local: int, nodes: int
) -> None:
    layout, problems = decided(machine, environ)
    assert not problems
    assert (layout.preset, layout.local, layout.nodes) == (preset, local, nodes)
    assert layout.reason


@pytest.mark.parametrize(
    ("machine", "environ", "line"),
    [
        (CPU, {"NPROC": "two"}, "NPROC: 'two' is not allowed; allowed: a whole number from 1"),
        (CPU, {"MASTER_PORT": "70000"}, "MASTER_PORT: '70000' is not allowed"),
        (CPU, {"NODE_RANK": "1"}, "NODE_RANK: is 1 of 1 nodes"),
        (CPU, {**TWO_NODES, "NODE_RANK": "2"}, "NODE_RANK: is 2 of 2 nodes"),
        (CPU, {"NNODES": "2", "MASTER_ADDR": "h"}, "NODE_RANK: is not set and NNODES is 2"),
        (CPU, {"NNODES": "2", "NODE_RANK": "0"}, "MASTER_ADDR: is not set and NNODES is 2"),
        (CPU, {"NPROC": "2", "NGPU": "4"}, "NGPU: is 4 and NPROC is 2; set one of them"),
        (CPU, {"NPROC": "2", "WORLD_SIZE": "3"}, "WORLD_SIZE: is 3, and 1 nodes with 2"),
        (CPU, {**TWO_NODES, "WORLD_SIZE": "3"}, "WORLD_SIZE: 3 cannot be divided among 2"),
        (CPU, {**TWO_NODES, FLAGS: '{"num_processes": 3}'}, f"{FLAGS}: num_processes: 3 cannot"),
        (CPU, {"NPROC": "2", "SFT_ACCELERATE_PRESET": "fsdp2"}, "fsdp2 needs GPUs"),
        (CPU, {"NPROC": "2", "SFT_ACCELERATE_PRESET": "single"}, "single is one process and 2"),
        (HOPPER, {"SFT_ACCELERATE_PRESET": "ddp"}, "ddp needs two processes or more"),
        (HOPPER, {"NPROC": "2"}, "NPROC: 2 processes need as many GPUs and 1 are visible"),
        (of(HOPPER, 2), {"AXOLOTL_DEEPSPEED": "a.json", "SFT_ACCELERATE_PRESET": "fsdp2"},
         "AXOLOTL_DEEPSPEED: shards in its own way"),
        (of(HOPPER, 2), {"AXOLOTL_FSDP_CONFIG": "{}", "SFT_ACCELERATE_PRESET": "zero2"},
         "AXOLOTL_FSDP_CONFIG: is FSDP's"),
        (CPU, {FLAGS: '{"machine_rank": 1}'}, "machine_rank is not taken: it differs from node"),
        (CPU, {FLAGS: '{"cpu": true}'}, "cpu is not taken: accelerate would train in one process"),
        (CPU, {FLAGS: '{"fsdp-activation-checkpointing": "true"}'},
         "set AXOLOTL_FSDP_CONFIG__ACTIVATION_CHECKPOINTING"),
        (CPU, {FLAGS: '{"use_deepspeed": true}'}, "set SFT_ACCELERATE_PRESET"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(machine: Machine, environ: dict[str, str], line: str) -> None:
    _, problems = decided(machine, environ)
    assert len(problems) == 1, problems
    assert line in problems[0]


def test_every_flag_of_accelerates_passes_is_taken_or_has_a_reason() -> None:
    """So that a new accelerate's new flags are looked at."""
    names = upstream.accelerate()["flags"]
    settings = load({FLAGS: "{}"})
    all_ = replace(settings.own[FLAGS], value=dict.fromkeys(names, True))
    refused = {
        p.message.split()[0]
        for p in accelerate_flags.refusals(replace(settings, own={FLAGS: all_}))
    }
    assert sorted(set(names) - refused - accelerate_flags._TAKEN) == [
        "debug", "enable_cpu_affinity", "log_dir", "monitor_interval",
        "num_cpu_threads_per_process", "quiet", "rdzv_backend", "rdzv_conf", "role",
        "same_network", "tee",
    ]  # fmt: skip


FSDP_FILE = {
    "distributed_type": "FSDP", "num_processes": 2, "rdzv_backend": "c10d",
    "fsdp_config": {"fsdp_version": 1, "fsdp_state_dict_type": "FULL_STATE_DICT"},
}  # fmt: skip
ZERO = {"distributed_type": "DEEPSPEED", "num_processes": 2, "deepspeed_config": {"zero_stage": 3}}
LAYOUTS: list[tuple[Machine, dict[str, str], dict[str, Any] | None]] = [
    (CPU, {}, None),
    (CPU, {"NPROC": "2"}, None),
    (CPU, {**TWO_NODES, "NPROC": "2"}, None),
    (CPU, {}, {"distributed_type": "MULTI_CPU", "num_processes": 2, "same_network": True}),
    (HOPPER, {}, None),
    (of(AMPERE, 2), {}, None),
    (of(HOPPER, 8), {}, None),
    (of(HOPPER, 8), {**TWO_NODES, "NODE_RANK": "1"}, None),
    (of(HOPPER, 8), {"AXOLOTL_FSDP_CONFIG__OFFLOAD_PARAMS": "true"}, None),
    (of(HOPPER, 8), {FLAGS: '{"quiet": true, "num_cpu_threads_per_process": 4}'}, None),
    (of(HOPPER, 8), {}, FSDP_FILE),
    (of(HOPPER, 2), {}, ZERO),
    *(
        (of(HOPPER, gpus), {"SFT_ACCELERATE_PRESET": preset, **nodes}, None)
        for preset in ("ddp", "fsdp2", "zero2", "zero3")
        for gpus in (2, 8)
        for nodes in ({}, TWO_NODES)
    ),
]


@pytest.mark.parametrize(("machine", "environ", "file"), LAYOUTS)
def test_accelerate_takes_the_file_and_the_flags(
    machine: Machine,
    environ: dict[str, str],
    file: dict[str, Any] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(machine, environ, file)
    layout = config.parallel
    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml_files.render_accelerate(config))
    loaded = load_config_from_file(str(path))
    assert (loaded.num_processes, loaded.num_machines) == (layout.world, layout.nodes)
    where, _ = rendezvous.read(environ)
    plan = launch.train(config, Place(tmp_path, "python", 8, "1:2", "1:2", where=where), {}, None)
    monkeypatch.setattr("accelerate.commands.launch.is_bf16_available", lambda _: True)
    flags = plan.argv[5:] if layout.world > 1 or layout.base else ("-m", *plan.argv[2:])
    words = ["--config_file", str(path), *flags]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    kinds = {"ddp": "multi_gpu", "fsdp2": "use_fsdp", "zero2": "use_deepspeed"}
    kind = kinds.get(layout.preset.replace("3", "2"))
    chosen = [k for k in ("multi_gpu", "use_fsdp", "use_deepspeed") if getattr(args, k)]
    assert chosen == ([kind] if kind else [])
    assert (args.num_processes, args.num_machines) == (layout.world, layout.nodes)
    assert not args.cpu
    if layout.nodes > 1:
        assert (args.machine_rank, args.main_process_ip) == (where.rank, where.address)


def test_fsdp2_is_the_same_in_axolotls_file_and_in_accelerates() -> None:
    config = configured(of(HOPPER, 2), {"AXOLOTL_FSDP_CONFIG__OFFLOAD_PARAMS": "true"})
    ours, theirs = (
        config.plain(),
        yaml.safe_load(yaml_files.render_accelerate(config))["fsdp_config"],
    )
    assert ours["fsdp_version"] == theirs["fsdp_version"] == 2
    assert ours["fsdp_config"] == {
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "SHARDED_STATE_DICT",
        "final_state_dict_type": "FULL_STATE_DICT",
        "reshard_after_forward": True,
        "offload_params": True,
        "cpu_ram_efficient_loading": True,
        "transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
    }
    for key, value in ours["fsdp_config"].items():
        if key != "final_state_dict_type":
            assert theirs[f"fsdp_{key}"] == value
    assert yaml.safe_load(yaml_files.render_accelerate(config))["mixed_precision"] == "bf16"


def test_a_quantised_model_is_not_loaded_on_one_rank_alone() -> None:
    asked = {"AXOLOTL_ADAPTER": "qlora", "SFT_ACCELERATE_PRESET": "fsdp2"}
    config = configured(of(HOPPER, 2), asked).plain()["fsdp_config"]
    assert config["cpu_ram_efficient_loading"] is False


def test_a_model_of_an_unknown_type_leaves_the_layer_to_accelerate() -> None:
    facts = replace(make_facts(of(HOPPER, 2)), parallel=Parallel("fsdp2", 2))
    config = resolve(load(MODEL_AND_DATA), facts).plain()["fsdp_config"]
    assert "transformer_layer_cls_to_wrap" not in config


@pytest.mark.parametrize("preset", ["zero2", "zero3"])
def test_zero_names_a_deepspeed_file_of_its_stage(preset: str) -> None:
    config = configured(of(HOPPER, 2), {"SFT_ACCELERATE_PRESET": preset})
    assert config.plain()["deepspeed"] == f"config/{preset}.json"
    name = yaml_files.deepspeed_file(config)
    assert name == f"{preset}.json"
    text = (yaml_files.TEMPLATES / "accelerate" / name).read_text()
    assert json.loads(text)["zero_optimization"]["stage"] == int(preset[-1])


def test_zero_without_deepspeed_is_refused_before_anything_starts() -> None:
    facts = replace(make_facts(of(HOPPER, 2)), parallel=Parallel("zero2", 2))
    lines = [str(p) for p in here(load(MODEL_AND_DATA), facts)]
    assert lines == [
        "SFT_ACCELERATE_PRESET: zero2 needs DeepSpeed, which is not installed; use fsdp2"
    ]


def test_the_users_file_keeps_what_the_preset_does_not_set() -> None:
    made = yaml.safe_load(yaml_files.render_accelerate(configured(of(HOPPER, 8), {}, FSDP_FILE)))
    assert made["rdzv_backend"] == "c10d"
    assert made["num_processes"] == 8
    assert made["fsdp_config"]["fsdp_version"] == 2
    assert made["fsdp_config"]["fsdp_state_dict_type"] == "SHARDED_STATE_DICT"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ({"distributed_type": "TPU"}, "its distributed_type is 'TPU'"),
        ({"num_processes": 2}, "its distributed_type is None"),
        ({"distributed_type": "NO", "num_proc": 1}, "accelerate knows no key num_proc"),
        ({"distributed_type": "NO", "compute_environment": "AMAZON_SAGEMAKER"}, "LOCAL_MACHINE"),
    ],
)
def test_a_file_that_accelerate_would_refuse_is_refused_before(
    file: dict[str, Any], line: str
) -> None:
    _, problems = decided(CPU, {}, file)
    assert any(line in problem for problem in problems), problems


def test_the_step_counts_the_ranks_of_all_nodes_but_not_those_that_share_a_sequence() -> None:
    plain = configured(of(HOPPER, 4), TWO_NODES).plain()
    assert plain["micro_batch_size"] * plain["gradient_accumulation_steps"] * 8 >= 16
    asked = {**TWO_NODES, "AXOLOTL_TENSOR_PARALLEL_SIZE": "2", "AXOLOTL_MICRO_BATCH_SIZE": "1"}
    assert configured(of(HOPPER, 4), asked).plain()["gradient_accumulation_steps"] == 4


def test_another_number_of_ranks_is_another_run_but_another_port_is_not() -> None:
    keys = [
        configured(CPU, environ).key({})
        for environ in ({"NPROC": "2"}, {"NPROC": "2", "MASTER_PORT": "9"}, {"NPROC": "3"})
    ]
    assert keys[0] == keys[1] != keys[2]


def test_the_meeting_point_has_torchruns_port_by_default() -> None:
    where, problems = rendezvous.read({**TWO_NODES, "NODE_RANK": "1"})
    assert not problems
    assert where == Rendezvous(nodes=2, rank=1, address="train-0")
    assert where.meeting == ("train-0", 29500)
