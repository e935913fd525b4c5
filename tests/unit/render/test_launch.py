"""What a child is started with."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from envtune.machine.rendezvous import VARIABLES, Rendezvous
from envtune.render import launch, yaml_files
from envtune.render.launch import LaunchPlan, Place
from envtune.resolve.config import Parallel
from envtune.settings import sources, upstream
from envtune.settings.own import OWN
from tests.unit.builders import MODEL_AND_DATA, run_config

PLACE = Place(Path("/runs/one"), "/venv/bin/python", 6, "17:1234", owner="3:99")
ONE, TWO = Parallel(), Parallel("ddp", 2)
PLANT = "hf_planted_secret"


def started(
    environ: dict[str, str],
    device: str = "cpu",
    resume: str | None = None,
    *,
    offline: bool = False,
    place: Place = PLACE,
    parallel: Parallel = ONE,
    flags: Mapping[str, Any] | None = None,
) -> LaunchPlan:
    config = run_config(SFT_ACCELERATE_LAUNCH_ARGS=flags)
    config = replace(config, device=device, offline=offline, parallel=parallel)
    return launch.train(config, place, sources.read(environ=environ).passed_on, resume)


def test_no_secret_is_on_the_command_line() -> None:
    plan = started(dict.fromkeys(("HF_TOKEN", "WANDB_API_KEY", "RUNPOD_API_KEY"), PLANT))
    assert not [word for word in plan.argv if PLANT in word]
    assert plan.env["HF_TOKEN"] == PLANT


def test_the_child_runs_in_the_run_folder_with_relative_paths() -> None:
    plan = started({})
    assert plan.cwd == PLACE.run_dir
    assert plan.argv[0] == PLACE.python
    assert plan.argv[-1] == "config/axolotl.yaml"
    assert not [word for word in plan.argv[1:] if word.startswith("/")]


def test_our_settings_are_not_in_the_childs_environment() -> None:
    ours = {**MODEL_AND_DATA, **dict.fromkeys(OWN, "1"), "sft_rerun": "1", "axolotl_x": "1",
            "AXOLOTL_NO_SUCH": "1", "SFT_TRAINER_PORT": "tcp://1.2.3.4:80"}  # fmt: skip
    assert not ours.keys() & started(ours).env.keys()


def test_what_axolotl_reads_itself_is_in_the_childs_environment() -> None:
    reserved = set(upstream.axolotl()["reserved"]) - {"AXOLOTL_IS_PREPROCESS"}
    env = started(dict.fromkeys(reserved, "7")).env
    assert {env.get(name) for name in reserved} == {"7"}


def test_a_variable_that_would_skip_training_never_reaches_the_child() -> None:
    assert "AXOLOTL_IS_PREPROCESS" not in started({"AXOLOTL_IS_PREPROCESS": "1"}).env


def test_everything_else_is_passed_on_as_it_is() -> None:
    others = {
        "PATH": "/bin",
        "NCCL_DEBUG": "INFO",
        "WANDB_PROJECT": "p",
        "HF_HOME": "/c",
        "ODD": "a\nb",
    }
    env = started(others).env
    assert {name: env[name] for name in others} == others


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AXOLOTL_DO_NOT_TRACK", "1"),
        ("AXOLOTL_DATASET_NUM_PROC", "6"),
        ("AXOLOTL_TEE_STDOUT", "0"),
        ("OMP_NUM_THREADS", "6"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("PYTHONUNBUFFERED", "1"),
    ],
)
def test_a_default_holds_until_the_user_says_otherwise(name: str, value: str) -> None:
    assert started({}).env[name] == value
    assert started({name: "theirs"}).env[name] == "theirs"


def test_the_users_older_name_for_the_data_workers_is_not_shadowed() -> None:
    # Axolotl reads AXOLOTL_DATASET_NUM_PROC first, so ours must not be there.
    env = started({"AXOLOTL_DATASET_PROCESSES": "3"}).env
    assert env.get("AXOLOTL_DATASET_NUM_PROC", "3") == "3"


@pytest.mark.parametrize(
    ("environ", "token"),
    [
        ({"HUGGING_FACE_HUB_TOKEN": "old"}, "old"),
        ({"HUGGINGFACE_HUB_TOKEN": "older"}, "older"),
        ({"HF_TOKEN": "new", "HUGGING_FACE_HUB_TOKEN": "old"}, "new"),
        pytest.param(
            {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "old"}, "old",
        ),
        ({}, None),
    ],
)  # fmt: skip
def test_the_old_names_of_the_token_work(environ: dict[str, str], token: str | None) -> None:
    assert started(environ).env.get("HF_TOKEN") == token


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, "disabled"),
        pytest.param(
            {"WANDB_MODE": ""}, "disabled",
        ),
        ({"WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": PLANT}, None),
        ({"WANDB_API_KEY": PLANT, "WANDB_MODE": "disabled"}, "disabled"),
    ],
)  # fmt: skip
def test_weights_and_biases_never_asks(environ: dict[str, str], mode: str | None) -> None:
    assert started(environ).env.get("WANDB_MODE") == mode


def test_on_a_cpu_the_gpus_are_hidden_and_on_a_gpu_the_users_choice_stands() -> None:
    chosen = {"CUDA_VISIBLE_DEVICES": "1"}
    assert started(chosen, "cpu").env["CUDA_VISIBLE_DEVICES"] == ""
    assert started(chosen, "cuda").env["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in started({}, "cuda").env


@pytest.mark.parametrize(
    ("given", "ranks", "seen"),
    [
        ("2,3", 1, "2"),
        ("3,1,2", 2, "3,1"),
        ("GPU-a,GPU-b,GPU-c", 2, "GPU-a,GPU-b"),
        ("", 1, "0"),
        ("", 2, "0,1"),
    ],
)
def test_fewer_processes_see_the_first_of_the_gpus_that_the_user_chose(
    given: str, ranks: int, seen: str
) -> None:
    place = replace(PLACE, gpus=len(given.split(",")) if given else 3)
    plan = started(
        {"CUDA_VISIBLE_DEVICES": given}, "cuda", place=place, parallel=Parallel(local=ranks)
    )
    assert plan.env["CUDA_VISIBLE_DEVICES"] == seen


def test_as_many_processes_as_gpus_see_what_the_user_chose() -> None:
    place = replace(PLACE, gpus=2)
    plan = started({"CUDA_VISIBLE_DEVICES": "3,1"}, "cuda", place=place, parallel=TWO)
    assert plan.env["CUDA_VISIBLE_DEVICES"] == "3,1"
    assert "CUDA_VISIBLE_DEVICES" not in started({}, "cuda", place=place, parallel=TWO).env


def test_no_variable_that_makes_a_rank_reaches_the_launcher() -> None:
    stray = {**dict.fromkeys(VARIABLES, "1"), "PET_NNODES": "2", "PET_RDZV_BACKEND": "c10d"}
    assert not stray.keys() & started(stray).env.keys()


def test_two_processes_on_the_cpu_meet_on_loopback_and_know_their_device() -> None:
    plan = started({}, parallel=TWO)
    assert plan.env["ACCELERATE_USE_CPU"] == "true"
    assert plan.env["GLOO_SOCKET_IFNAME"] == "lo"
    assert plan.env["OMP_NUM_THREADS"] == "3"
    assert "--cpu" not in plan.argv
    assert _value(plan, "--main_process_port") == "0"
    assert "GLOO_SOCKET_IFNAME" not in started({}).env
    assert started({"GLOO_SOCKET_IFNAME": "eth0"}, parallel=TWO).env["GLOO_SOCKET_IFNAME"] == "eth0"


def test_a_port_of_the_users_is_taken_on_one_node_too() -> None:
    place = replace(PLACE, where=Rendezvous(port=4000))
    assert _value(started({}, place=place, parallel=TWO), "--main_process_port") == "4000"


def test_two_nodes_are_told_where_to_meet() -> None:
    where = Rendezvous(nodes=2, rank=1, address="train-0.train", port=None)
    layout = Parallel("ddp", 2, 2)
    plan = started({}, place=replace(PLACE, where=where), parallel=layout)
    told = [
        _value(plan, f"--{n}") for n in ("machine_rank", "main_process_ip", "main_process_port")
    ]
    assert told == ["1", "train-0.train", "29500"]
    assert "GLOO_SOCKET_IFNAME" not in plan.env


def test_the_users_flags_follow_ours_and_win() -> None:
    flags = {"num-cpu-threads-per-process": 3, "quiet": True, "debug": False,
             "rdzv_conf": "timeout=7", "config_file": "a.yaml", "num_processes": 4}  # fmt: skip
    argv = started({}, parallel=Parallel("ddp", 2, 2), flags=flags).argv
    theirs = argv[
        argv.index("--num_cpu_threads_per_process") : argv.index("envtune.engine.train") - 1
    ]
    assert theirs == ("--num_cpu_threads_per_process", "3", "--quiet", "--rdzv_conf", "timeout=7")
    args = launch_command_parser().parse_args(argv[3:])
    assert (args.rdzv_conf, args.quiet, args.module) == ("timeout=7", True, True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_process_that_trains_alone_is_what_the_launcher_would_start(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = started({"OMP_NUM_THREADS": "3", "HF_HOME": "/c"}, device)
    file = tmp_path / "accelerate.yaml"
    file.write_text(yaml_files.render_accelerate(replace(run_config(), device=device)))
    words = ["--config_file", str(file), "-m", *plan.argv[2:]]
    ours = {n: v for n, v in plan.env.items() if not n.startswith("ACCELERATE_")}
    for name in set(os.environ) - ours.keys():
        monkeypatch.delenv(name)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    argv, env = prepare_simple_launcher_cmd_env(args)
    assert tuple(argv[1:]) == plan.argv[1:]
    assert env == plan.env


def test_the_users_own_words_to_the_launcher_go_through_it() -> None:
    said = started({}, flags={"num_cpu_threads_per_process": 2}).argv
    files = started({}, parallel=replace(ONE, base={"distributed_type": "NO"})).argv
    assert said[2] == files[2] == "accelerate.commands.launch"
    assert launch.ahead(started({}, flags={"quiet": True})) is None


def test_a_trainer_that_waits_is_told_what_no_import_has_read() -> None:
    begun = launch.ahead(started({}))
    assert begun is not None
    assert begun.argv[1:] == ("-m", launch.TRAINER, launch.WAIT, "config/axolotl.yaml")
    late = started({"MLFLOW_RUN_ID": "7"}, resume="checkpoints/checkpoint-4")
    assert launch.since(begun, late) == {
        "MLFLOW_RUN_ID": "7", "ENVTUNE_RESUME": "checkpoints/checkpoint-4",
    }  # fmt: skip
    assert launch.since(begun, started({})) == {}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"])
def test_what_an_import_may_have_read_makes_another_trainer(name: str) -> None:
    begun = launch.ahead(started({}, "cuda"))
    assert begun is not None
    assert launch.since(begun, started({name: "5"}, "cuda")) is None
    with_it = launch.ahead(started({name: "5"}, "cuda"))
    assert with_it is not None
    assert launch.since(with_it, started({}, "cuda")) is None
    assert launch.since(begun, started({}, "cuda", parallel=TWO)) is None


def _value(plan: LaunchPlan, flag: str) -> str:
    return plan.argv[plan.argv.index(flag) + 1]


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, "disabled"),
        ({"WANDB_MODE": "online"}, "disabled"),
        ({"WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "online", "WANDB_API_KEY": PLANT}, "online"),
    ],
)
def test_tracking_is_online_only_with_a_key(environ: dict[str, str], mode: str) -> None:
    assert started(environ).env["WANDB_MODE"] == mode


def test_the_hub_is_off_only_where_nothing_is_to_be_fetched() -> None:
    assert "HF_HUB_OFFLINE" not in started({}).env
    assert started({}, offline=True).env["HF_HUB_OFFLINE"] == "1"
    assert started({"HF_HUB_OFFLINE": "0"}, offline=True).env["HF_HUB_OFFLINE"] == "0"


def test_the_child_is_told_its_run_its_supervisor_and_where_to_resume() -> None:
    env = started({"ENVTUNE_RUN_DIR": "/wrong"}, resume="checkpoints/checkpoint-4").env
    assert env["ENVTUNE_RUN_DIR"] == "/runs/one"
    assert env["ENVTUNE_SUPERVISOR"] == "17:1234"
    assert env["ENVTUNE_OWNER"] == "3:99"
    assert env["ENVTUNE_RESUME"] == "checkpoints/checkpoint-4"


def test_a_new_run_resumes_from_nothing_whatever_the_environment_holds() -> None:
    assert "ENVTUNE_RESUME" not in started({"ENVTUNE_RESUME": "checkpoints/checkpoint-9"}).env


def test_the_callers_environment_is_not_changed() -> None:
    environ = {"HF_TOKEN": PLANT}
    started(environ)
    assert environ == {"HF_TOKEN": PLANT}


def test_ranks_on_gpus_tell_what_goes_wrong_between_them() -> None:
    env = started({}, "cuda", parallel=TWO, place=replace(PLACE, gpus=2)).env
    assert (env["NCCL_DEBUG"], env["TORCH_NCCL_ASYNC_ERROR_HANDLING"]) == ("WARN", "1")
    env = started({"NCCL_DEBUG": "INFO"}, "cuda", parallel=TWO, place=replace(PLACE, gpus=2)).env
    assert env["NCCL_DEBUG"] == "INFO"
    assert "NCCL_DEBUG" not in started({}, "cuda").env


def measured(environ: dict[str, str], *, online: bool, device: str = "cpu") -> Mapping[str, str]:
    given = sources.read(environ=environ).passed_on
    env = launch.measuring(replace(run_config(), device=device), given, online=online)
    return launch.engine("evaluate", Path("order.json"), PLACE.python, PLACE.run_dir, env).env


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_an_engine_that_fetches_gets_the_hubs_token_and_no_other_secret(name: str) -> None:
    secrets = {name: PLANT, "WANDB_API_KEY": PLANT}
    online, offline = (measured(secrets, online=on) for on in (True, False))
    assert [key for key, value in online.items() if value == PLANT] == ["HF_TOKEN"]
    assert PLANT not in offline.values()
    assert (online["HF_HUB_OFFLINE"], offline["HF_HUB_OFFLINE"]) == ("0", "1")
    assert measured({"HF_HUB_OFFLINE": "1"}, online=True)["HF_HUB_OFFLINE"] == "1"


def test_an_engine_that_measures_sees_the_devices_that_training_saw() -> None:
    assert measured({}, online=False)["CUDA_VISIBLE_DEVICES"] == "-1"
    chosen = {"CUDA_VISIBLE_DEVICES": "3"}
    assert measured(chosen, online=False, device="cuda")["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_server_finds_the_compiler_of_its_own_environment() -> None:
    python, told = Path("/serve/bin/python"), {"PATH": "/train/bin:/usr/bin"}
    plan = launch.serve(Path("vllm.yaml"), python, Path("/run"), told, Path("/serve/cu13"))
    assert plan.env["CUDA_HOME"] == "/serve/cu13"
    assert plan.env["PATH"] == "/serve/bin:/train/bin:/usr/bin"
    without = launch.serve(Path("vllm.yaml"), python, Path("/run"), told, None)
    assert "CUDA_HOME" not in without.env
    assert without.env["PATH"] == told["PATH"]
