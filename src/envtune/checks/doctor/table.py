"""Every finding of the doctor: a code that stays, what it means, and what to do about it.

docs/troubleshooting.md is written from this table. `exit` is what a start would end with; DONE
marks what no start ends by.
"""

from dataclasses import dataclass

from envtune.errors import Exit, Problem


@dataclass(frozen=True)
class Row:
    """One code's meaning, the exit code of a start that meets it, and the fix."""

    exit: Exit
    meaning: str
    fix: str


@dataclass(frozen=True)
class Sign:
    """What a check has seen. Without a `code` all is well, or it was not looked at (`skipped`).

    `exit` and `fix` are the sign's own, where they say more than the table's.
    """

    evidence: str
    code: str = ""
    skipped: bool = False
    own_exit: Exit | None = None
    own_fix: str = ""

    @property
    def state(self) -> str:
        """well, skipped, warning or problem."""
        if not self.code:
            return "skipped" if self.skipped else "well"
        return "warning" if self.exit == Exit.DONE else "problem"

    @property
    def exit(self) -> Exit:
        """The exit code of a start that meets this."""
        if not self.code:
            return Exit.DONE
        return CODES[self.code].exit if self.own_exit is None else self.own_exit

    @property
    def fix(self) -> str:
        """What to do; empty where nothing is."""
        return self.own_fix or (CODES[self.code].fix if self.code else "")


def found(code: str, evidence: str, fix: str = "") -> Sign:
    """A finding."""
    return Sign(evidence, code, own_fix=fix)


def problem(code: str, told: Problem) -> Sign:
    """A finding that another check has put into a line, its fix among it."""
    line, _, fix = str(told).rpartition("; ")
    return Sign(line or fix, code, own_exit=told.exit, own_fix=fix if line else "")


def well(evidence: str) -> Sign:
    """Nothing to do."""
    return Sign(evidence)


def skipped(why: str) -> Sign:
    """Nothing to look at."""
    return Sign(why, skipped=True)


AREAS = {
    "MNT": "Mounts",
    "VOL": "Folders that are written to",
    "SHM": "Shared memory",
    "DSK": "Disk",
    "MEM": "Memory",
    "GPU": "GPUs, their driver and CUDA",
    "RED": "Processes that add up (all-reduce)",
    "RDV": "Where the nodes meet",
    "HUB": "The Hub: network, token, access",
    "PRX": "Proxy",
    "TLS": "Certificates",
    "CLK": "Clock",
    "TRK": "Trackers",
    "DAT": "Data",
    "CFG": "Settings",
    "DOC": "The doctor itself",
}

CODES: dict[str, Row] = {
    "D-MNT-01": Row(
        Exit.CONFIG,
        "a volume is mounted over the folder of the installation and hides what the image brought",
        "mount it elsewhere: /workspace is for data, runs and caches, and may be an empty volume",
    ),
    "D-MNT-02": Row(
        Exit.ACCESS,
        "the Hub's cache is empty, and nothing may be fetched: a volume mounted over it hides "
        "models that an image brought",
        "mount the volume beside the cache, name the cache in HF_HOME or SFT_CACHE_DIR, or allow "
        "the Hub: unset HF_HUB_OFFLINE and SFT_LOCAL_FILES_ONLY",
    ),
    "D-MNT-03": Row(
        Exit.DONE,
        "runs are written into the container itself and go with it",
        "mount a volume and write there: -v envtune:/workspace, in Kubernetes a PVC, or name a "
        "folder on it in SFT_OUTPUTS_DIR",
    ),
    "D-VOL-01": Row(
        Exit.CONFIG,
        "the folder of runs or of logs cannot be written by this user",
        "mount a volume that this uid or group 0 may write (fsGroup in Kubernetes, chown on the "
        "host), or name another folder in SFT_OUTPUTS_DIR and SFT_LOGS_DIR",
    ),
    "D-VOL-02": Row(
        Exit.CONFIG,
        "the folder of caches cannot be written by this user",
        "name a folder that can be in HF_HOME or SFT_CACHE_DIR",
    ),
    "D-VOL-03": Row(
        Exit.DISK,
        "the volume of the runs does not keep what is written, or renames no file",
        "look after the volume; runs need a file system that writes, syncs and renames",
    ),
    "D-VOL-04": Row(
        Exit.DONE,
        "the volume of the runs has no locks: only their beat tells starts of one run apart",
        "do not start one run from two containers at once; NFS 4 has locks, most FUSE mounts none",
    ),
    "D-SHM-01": Row(
        Exit.CONFIG,
        "/dev/shm is too small for several GPUs, which talk through it: bus error, or NCCL's "
        "`failed to extend`",
        "start the container with --shm-size=8g, in Kubernetes with an emptyDir of medium Memory",
    ),
    "D-SHM-02": Row(
        Exit.DONE,
        "/dev/shm is small: processes that load data, and vLLM, end with a bus error in it",
        "start the container with --shm-size=8g, or leave AXOLOTL_DATALOADER_NUM_WORKERS at 0",
    ),
    "D-SHM-03": Row(
        Exit.CONFIG,
        "/dev/shm is not there or cannot be written",
        "mount a tmpfs there that every user may write; Docker and Kubernetes do by themselves",
    ),
    "D-DSK-01": Row(
        Exit.DISK,
        "the disk under the runs or the caches is as good as full",
        "free space (`envtune runs --prune`), or name a folder elsewhere in SFT_OUTPUTS_DIR or "
        "SFT_CACHE_DIR",
    ),
    "D-DSK-02": Row(
        Exit.DISK,
        "the file system has room and takes no more files (inodes)",
        "remove files, or make the file system with more inodes",
    ),
    "D-DSK-03": Row(
        Exit.DONE,
        "little is free under the runs or the caches: a model of a few billion weights fills it",
        "take a larger volume, or fewer checkpoints (AXOLOTL_SAVE_TOTAL_LIMIT)",
    ),
    "D-MEM-01": Row(
        Exit.MEMORY,
        "less memory is free than the libraries of a training take before any model",
        "give the container more (--memory, resources.limits.memory), or end what else runs",
    ),
    "D-MEM-02": Row(
        Exit.DONE,
        "the kernel has ended processes of this container for memory",
        "raise the container's limit, or choose a smaller model or batch",
    ),
    "D-GPU-01": Row(
        Exit.CONFIG,
        "no GPU is visible where one is asked for",
        "start the container with --gpus all (nvidia.com/gpu in Kubernetes), or set SFT_DEVICE=cpu",
    ),
    "D-GPU-02": Row(
        Exit.CONFIG,
        "the driver is there and does not answer",
        "its library and the kernel's part differ, or the GPU has fallen off the bus: nvidia-smi "
        "on the host tells; restart the host or take another",
    ),
    "D-GPU-03": Row(
        Exit.CONFIG,
        "the driver is too old for the CUDA that torch here is built for",
        "take a host with a newer driver",
    ),
    "D-GPU-04": Row(
        Exit.CONFIG,
        "the GPU is too old: torch here holds no code for it",
        "take a GPU of Turing or later (T4, A10, L4, ...)",
    ),
    "D-GPU-05": Row(
        Exit.CONFIG,
        "there is a GPU, and torch here is built for CPUs alone",
        "use the image's cuda flavour, or install requirements.txt with torch's CUDA build",
    ),
    "D-GPU-06": Row(
        Exit.DONE,
        "somebody else holds memory of a GPU",
        "end what runs there (nvidia-smi shows it), or choose another by CUDA_VISIBLE_DEVICES",
    ),
    "D-RED-01": Row(
        Exit.HARDWARE,
        "two processes of this machine cannot add up numbers over gloo",
        "let loopback be used: a firewall, a sandbox or a missing `lo` stands between them",
    ),
    "D-RED-02": Row(
        Exit.HARDWARE,
        "the GPUs cannot compute or add up numbers over NCCL",
        "NCCL_DEBUG=INFO tells more; try NCCL_P2P_DISABLE=1 (PCIe with ACS), NCCL_IB_DISABLE=1 "
        "(no InfiniBand), or another machine",
    ),
    "D-RDV-01": Row(
        Exit.CONFIG,
        "the variables that say which node this is contradict each other",
        "correct them: docs/launch.md has the table",
    ),
    "D-RDV-02": Row(
        Exit.NETWORK,
        "the name of node 0 leads nowhere",
        "check MASTER_ADDR; in Kubernetes a headless Service with publishNotReadyAddresses: true",
    ),
    "D-RDV-03": Row(
        Exit.CONFIG,
        "the port where the nodes meet is taken",
        "set MASTER_PORT to one that is free on node 0, the same on every node",
    ),
    "D-RDV-04": Row(
        Exit.NETWORK,
        "no way leads to node 0",
        "open MASTER_PORT between the nodes (firewall, NetworkPolicy), or correct MASTER_ADDR",
    ),
    "D-RDV-05": Row(
        Exit.DONE,
        "this host's own name leads nowhere, and several nodes may look for it",
        "give it a line in /etc/hosts, or set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME",
    ),
    "D-HUB-01": Row(
        Exit.NETWORK,
        "the Hub cannot be reached",
        "open the way there (DNS, firewall, HTTPS_PROXY), name a mirror in HF_ENDPOINT, or use "
        "local folders with HF_HUB_OFFLINE=1",
    ),
    "D-HUB-02": Row(
        Exit.ACCESS,
        "the Hub does not take the token",
        "make a new one on the Hub's page of tokens and set HF_TOKEN",
    ),
    "D-HUB-03": Row(
        Exit.ACCESS,
        "a model or a data set may not be read, or is not there",
        "check its name, accept its licence on its page, or take a token that may read it",
    ),
    "D-HUB-04": Row(
        Exit.ACCESS,
        "the place to publish to may not be written",
        "take a token or keys that may write there",
    ),
    "D-PRX-01": Row(
        Exit.NETWORK,
        "a proxy that is set cannot be reached",
        "correct HTTPS_PROXY and HTTP_PROXY, or unset them",
    ),
    "D-TLS-01": Row(
        Exit.CONFIG,
        "the file of certificates cannot be used",
        "name a PEM file in SFT_CA_BUNDLE",
    ),
    "D-TLS-02": Row(
        Exit.CONFIG,
        "the Hub's certificate is not trusted: a proxy looks into TLS, or the clock is wrong",
        "set SFT_CA_BUNDLE to a file with the public and your company's certificates",
    ),
    "D-TLS-03": Row(
        Exit.DONE,
        "no certificate is verified",
        "unset SFT_INSECURE_TLS and set SFT_CA_BUNDLE",
    ),
    "D-CLK-01": Row(
        Exit.DONE,
        "the clock is more than a minute off: leases and the times of files may mislead",
        "let the host's time be kept (chrony, systemd-timesyncd)",
    ),
    "D-CLK-02": Row(
        Exit.CONFIG,
        "the clock is so far off that stores refuse signatures and certificates seem over",
        "set the host's clock",
    ),
    "D-TRK-01": Row(
        Exit.CONFIG,
        "a tracker that is asked for cannot be used",
        "install its client, or unset it",
    ),
    "D-TRK-02": Row(
        Exit.DONE,
        "a tracker does not answer or refuses its key: the run is tracked in its own folder",
        "correct the key or the address; `wandb sync` uploads later",
    ),
    "D-DAT-01": Row(
        Exit.DATA,
        "the data cannot be read or trained as it is",
        "mend the row that is named; docs/data.md has the forms",
    ),
    "D-CFG-01": Row(
        Exit.CONFIG,
        "a setting is refused",
        "`envtune check` tells all at once, `envtune explain KEY` what one takes",
    ),
    "D-DOC-01": Row(
        Exit.HARDWARE,
        "a check gave no answer in its time: what it looked at hangs",
        "look after what it names; a volume that hangs (NFS) needs its server",
    ),
    "D-DOC-02": Row(
        Exit.BUG,
        "a check failed itself",
        "what it says is shown; the other checks stand",
    ),
}
