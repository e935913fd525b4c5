"""Writes the generated reference under a folder, by default the working directory."""

import sys
from collections.abc import Callable
from pathlib import Path

from envtune import files
from envtune.reference import dashboard, document, example, hub, page, runpod, troubleshooting
from envtune.reference.kubernetes import manifests

FILES: dict[str, Callable[[], str]] = {
    "docs/settings.md": page.text,
    "docs/troubleshooting.md": troubleshooting.text,
    "docs/settings.schema.json": document.text,
    "env.example": example.text,
    **dict(manifests.files()),
    "templates/runpod/template.json": runpod.text,
    "templates/grafana/dashboard.json": dashboard.text,
    ".runpod/hub.json": hub.text,
    ".runpod/tests.json": hub.tests_text,
}


def main(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / name, text())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
