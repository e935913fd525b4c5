"""What platforms say about nodes, in variables as their own documentation and source have them."""

import pytest

from envtune.machine import rendezvous
from envtune.machine.rendezvous import Rendezvous

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-1"}
SET = {"NNODES": "4", "MASTER_ADDR": "train-0.train"}
RUNPOD = {
    "RUNPOD_POD_ID": "abc", "NUM_NODES": "2", "NUM_TRAINERS": "8", "NODE_RANK": "1",
    "WORLD_SIZE": "16", "PRIMARY_ADDR": "10.65.0.2", "MASTER_ADDR": "10.65.0.2",
    "PRIMARY_PORT": "29400", "MASTER_PORT": "29400", "NODE_ADDR": "10.65.0.3",
}  # fmt: skip
# Of Kubeflow's training operator 1.9, where nprocPerNode is left at auto.
PYTORCHJOB = {
    "MASTER_ADDR": "sft-master-0", "PET_MASTER_ADDR": "sft-master-0", "MASTER_PORT": "23456",
    "PET_MASTER_PORT": "23456", "WORLD_SIZE": "2", "RANK": "1", "PET_NODE_RANK": "1",
    "PET_NPROC_PER_NODE": "auto", "PET_NNODES": "2", "HOSTNAME": "sft-worker-0",
}  # fmt: skip
# Of Kubeflow Trainer 2, whose nodes are an indexed Job.
TRAINJOB = {
    "PET_NNODES": "2", "PET_NPROC_PER_NODE": "4", "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "sft-node-0-0.sft", "PET_MASTER_PORT": "29500",
    "JOB_COMPLETION_INDEX": "1", "HOSTNAME": "sft-node-0-1",
}  # fmt: skip
SLURM = {
    "SLURM_NNODES": "4", "SLURM_JOB_NODELIST": "gpu[01-04]", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_NODEID": "1", "SLURM_PROCID": "1",
}  # fmt: skip
BATCH = {name: value for name, value in SLURM.items() if "_STEP_" not in name}

SAID = [
    (POD, Rendezvous()),
    ({**POD, **SET}, Rendezvous(4, 1, "train-0.train")),
    ({**SET, "POD_NAME": "train-3", "HOSTNAME": "gpu-node-17"}, Rendezvous(4, 3, "train-0.train")),
    ({**POD, **SET, "NODE_RANK": "2"}, Rendezvous(4, 2, "train-0.train")),
    ({**SET, "JOB_COMPLETION_INDEX": "0", **POD}, Rendezvous(4, 0, "train-0.train")),
    ({"JOB_COMPLETION_INDEX": "7"}, Rendezvous()),
    (RUNPOD, Rendezvous(2, 1, "10.65.0.2", 29400, 8, 16)),
    ({**RUNPOD, "RUNPOD_POD_ID": "", "NODE_RANK": "", "WORLD_SIZE": ""},
     Rendezvous(1, 0, "10.65.0.2", 29400)),
    ({**POD, **PYTORCHJOB}, Rendezvous(2, 1, "sft-master-0", 23456)),
    ({**POD, **PYTORCHJOB, "PET_NPROC_PER_NODE": "4", "WORLD_SIZE": "8"},
     Rendezvous(2, 1, "sft-master-0", 23456, 4, 8)),
    ({**POD, **TRAINJOB}, Rendezvous(2, 1, "sft-node-0-0.sft", 29500, 4)),
    (SLURM, Rendezvous(2, 1, "gpu03")),
    ({**SLURM, "SLURM_STEP_NODELIST": "dgx-a,dgx-b"}, Rendezvous(2, 1, "dgx-a")),
    ({**SLURM, "SLURM_STEP_NODELIST": "r[1-2]n[07,9]"}, Rendezvous(2, 1, "r1n07")),
    ({**SLURM, "MASTER_ADDR": "10.1.1.1"}, Rendezvous(2, 1, "10.1.1.1")),
    (BATCH, Rendezvous()),
    ({**SLURM, "SLURM_PTY_PORT": "40000", "SLURM_STEP_TASKS_PER_NODE": "8"}, Rendezvous()),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "expected"), SAID)
def test_a_platforms_variables_become_a_rendezvous(
    environ: dict[str, str], expected: Rendezvous
) -> None:
    where, problems = rendezvous.read(environ)
    assert not problems
    assert where == expected
    assert rendezvous.rank(environ, where.nodes) == where.rank


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({**SET, "POD_NAME": "train-4"}, "POD_NAME: is 4 of 4 nodes; they count from 0"),
        ({**SET, "HOSTNAME": "train-1"}, "NODE_RANK: is not set and NNODES is 4"),
        ({**SET, **POD, "HOSTNAME": "train-x7b2"}, "NODE_RANK: is not set and NNODES is 4"),
        ({**RUNPOD, "NUM_TRAINERS": "4"}, "WORLD_SIZE: is 16, and 2 nodes with 4 processes each"),
        ({**RUNPOD, "NUM_NODES": "two"}, "NUM_NODES: 'two' is not allowed"),
        ({**PYTORCHJOB, "PET_NNODES": "1:4"}, "PET_NNODES: '1:4' is not allowed"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "8(x2)"},
         "SLURM_STEP_TASKS_PER_NODE: is 8(x2); start one task on each node"),
        ({**SLURM, "SLURM_STEP_NODELIST": ""}, "MASTER_ADDR: is not set and NNODES is 2"),
    ],
)  # fmt: skip
def test_what_a_platform_says_wrong_is_one_line_with_its_name(
    environ: dict[str, str], line: str
) -> None:
    _, problems = rendezvous.read(environ)
    assert len(problems) == 1, problems
    assert str(problems[0]).startswith(line)
