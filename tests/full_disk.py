"""A disk that is full at the n-th write: see full_disk.c. Preloaded into what a test starts."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_TOLD = struct.Struct(f"qqq{os.pathconf('/', 'PC_PATH_MAX')}s")


class FullDisk:
    """Fails one write below `under`, counted over all processes of a start. `work` is outside."""

    def __init__(self, work: Path, under: Path) -> None:
        if not (compiler := shutil.which("cc")):
            pytest.skip("no C compiler makes what fails the writes")
        work.mkdir(parents=True, exist_ok=True)
        self.under, self.library, self.told = under, work / "full_disk.so", work / "told"
        self.told.write_bytes(bytes(_TOLD.size))
        source = Path(__file__).with_suffix(".c")
        flags = ["-O1", "-Wall", "-shared", "-fPIC", "-o", str(self.library)]
        subprocess.run([compiler, *flags, str(source), "-ldl"], check=True)

    def at(self, number: int, *, stays: bool = False) -> dict[str, str]:
        """The environment of a start whose write of that number fails; with `stays` all after it
        do too."""
        packed = _TOLD.pack(0, number, stays, str(self.under).encode())
        with self.told.open("r+b") as stream:  # in place: others have it mapped
            stream.write(packed)
        return self.environ

    @property
    def environ(self) -> dict[str, str]:
        """What a process is told at its start; what is to fail it learns while it runs."""
        return {"LD_PRELOAD": str(self.library), "FULL_DISK_TOLD": str(self.told)}

    @property
    def seen(self) -> int:
        """How many writes there were since."""
        return int(_TOLD.unpack(self.told.read_bytes())[0])
