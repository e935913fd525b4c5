"""The doors of a file: by its path, in base64, as a template, and by variables."""

import base64
import json
from pathlib import Path

import yaml

from envtune.settings import loading, sources
from envtune.settings.typed import Settings
from tests.replay.documents import Document

FILE, BASE64, TEMPLATE = (
    "SFT_TRAINER_CONFIG_JSON_PATH", "SFT_TRAINER_CONFIG_JSON_ENV_VAR", "SFT_TEMPLATE",
)  # fmt: skip


def settings(**environ: str) -> Settings:
    return loading.load(sources.with_documents(sources.read(environ=environ)))


def found(made: Settings) -> Document:
    """Every value, without the names of the documents."""
    several = {**made.axolotl, **made.own}
    return {k: s.value for k, s in several.items() if k not in (FILE, BASE64, TEMPLATE)}


def by_file(document: Document, folder: Path) -> Settings:
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return settings(**{FILE: str(folder / "config.yaml")})


def by_json(document: Document, folder: Path) -> Settings:
    (folder / "config.json").write_text(json.dumps(document))
    return settings(**{FILE: str(folder / "config.json")})


def by_base64(document: Document, folder: Path) -> Settings:
    return settings(**{BASE64: base64.b64encode(json.dumps(document).encode()).decode()})


def by_template(document: Document, folder: Path) -> Settings:
    (folder / "template.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return settings(**{TEMPLATE: str(folder / "template.yaml")})


def by_variables(document: Document, folder: Path) -> Settings:
    """Each key that the file comes to, as Axolotl's own variable or envtune's."""
    named = {
        **{f"AXOLOTL_{key.upper()}": s for key, s in by_json(document, folder).axolotl.items()},
        **by_json(document, folder).own,
    }
    environ = {name: sources.as_text(s.value) for name, s in named.items() if name != FILE}
    return settings(**{name: text for name, text in environ.items() if text.strip()})
