#!/usr/bin/env python3
"""Known vulnerabilities of what the locks pin, and what holds each pin: `make audit`.

usage: audit.py LOCK ...

Asks an advisory service (SERVICE=osv, or pypi) by pip-audit, which is beside this Python. What
binds a package are the distributions of the checkout's environments whose metadata leaves out every
version that mends it. Ends with 1 where there is an advisory, or a package is not asked about.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# Where a lock is installed, in a checkout; what is not there binds nothing that could be read.
PLACES = (".venv", ".venv-serve", ".venv-quantise")


def audited(lock: str) -> list[dict[str, Any]]:
    """What pip-audit says of each package of a lock. Exits where it could not ask."""
    tool = Path(sys.executable).with_name("pip-audit")
    service = ["--vulnerability-service", os.environ.get("SERVICE", "pypi")]
    options = [
        *service,
        "--format",
        "json",
        "--no-deps",
        "--disable-pip",
        "--progress-spinner",
        "off",
    ]
    done = subprocess.run(
        [tool, *options, "-r", ROOT / lock], capture_output=True, text=True, check=False
    )
    try:
        told: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        sys.exit(f"{lock}: no advisory service answers: {reason}")
    return told


def binding(name: str, mended: list[str], wanted: Mapping[str, list[str]]) -> list[str]:
    """The distributions that take no version which mends a package, with what they take.

    `wanted` is distribution -> its Requires-Dist.
    """
    found = []
    for distribution, lines in sorted(wanted.items()):
        for line in lines:
            asked = Requirement(line)
            if canonicalize_name(asked.name) == name and (
                mended and not any(asked.specifier.contains(v, prereleases=True) for v in mended)
            ):
                found.append(f"{distribution} ({asked.name}{asked.specifier})")
    return found


def installed() -> dict[str, list[str]]:
    """Each distribution of the checkout's environments and what it asks for."""
    paths = [str(p) for place in PLACES for p in ROOT.glob(f"{place}/lib/python3*/site-packages")]
    found = metadata.distributions(path=paths)
    return {d.name: [r for r in d.requires or () if "extra ==" not in r] for d in found}


def lines(lock: str, told: list[dict[str, Any]], wanted: Mapping[str, list[str]]) -> Iterator[str]:
    """A line for each advisory, and one for all packages that could not be asked about."""
    skipped = [package for package in told if "skip_reason" in package]
    if skipped:
        names = ", ".join(package["name"] for package in skipped[:3])
        more = f" ({names}{', ...' if len(skipped) > 3 else ''})"
        reason = skipped[0]["skip_reason"]
        yield f"{lock}: {len(skipped)} of {len(told)} packages not audited{more}: {reason}"
    for package in told:
        name = canonicalize_name(package["name"])
        for advisory in package.get("vulns", ()):
            mended = advisory.get("fix_versions", [])
            held = binding(name, mended, wanted)
            by = "; ".join(held) or "nothing that is installed here"
            fix = f"mended in {', '.join(mended)}" if mended else "mended in no version"
            yield f"{lock}: {name} {package['version']}: {advisory['id']}: {fix}; bound by {by}"


def main(locks: list[str]) -> int:
    wanted = installed()
    told = [line for lock in locks for line in lines(lock, audited(lock), wanted)]
    for line in dict.fromkeys(re.sub(r"\s+", " ", line) for line in told):
        print(line)
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
