"""A disk that is full at the n-th write: see full_disk.c. Preloaded into what a test starts."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest


class FullDisk:
    """Fails one write below `under`, counted over all processes of a start. `work` is outside."""

    def __init__(self, work: Path, under: Path) -> None:
        if not (compiler := shutil.which("cc")):
            pytest.skip("no C compiler makes what fails the writes")
        work.mkdir(parents=True, exist_ok=True)
        self.under, self.library, self.count = under, work / "full_disk.so", work / "count"
        source = Path(__file__).with_suffix(".c")
        flags = ["-O1", "-Wall", "-shared", "-fPIC", "-o", str(self.library)]
        subprocess.run([compiler, *flags, str(source), "-ldl"], check=True)

    def at(self, number: int, *, stays: bool = False) -> dict[str, str]:
        """The environment of a start whose write of that number fails; with `stays` all after it
        do too."""
        self.count.write_bytes(bytes(8))
        names = {"UNDER": self.under, "AT": number, "COUNT": self.count}
        told = {f"FULL_DISK_{name}": str(value) for name, value in names.items()}
        return {
            "LD_PRELOAD": str(self.library),
            **told,
            **({"FULL_DISK_STAYS": "1"} if stays else {}),
        }

    @property
    def seen(self) -> int:
        """How many writes there were since."""
        return int(struct.unpack("q", self.count.read_bytes())[0])
