"""Which trackers answer, asked before training starts: a dead one costs no run.

Where the service does not answer, or refuses the key, the run is tracked into its own
folder instead, from where it can be sent later.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune import files
from envtune.redaction import without_user
from envtune.resolve.config import RunConfig
from envtune.runs.contents import STORE, TRACKED
from envtune.transfer.deadline import answers

# Seconds for all questions, which are asked at once.
PATIENCE = 5.0
# Keys that Axolotl puts into the environment, over a variable of the same name.
KEYS = ("mlflow_tracking_uri", "wandb_mode")
_OFFLINE = ("offline", "dryrun", "disabled")
_WANDB = "https://api.wandb.ai"


@dataclass(frozen=True)
class Tracked:
    """The variables that a tracker is started with, and what the user should know."""

    environ: Mapping[str, str]
    warnings: tuple[str, ...]


def reached(config: RunConfig, environ: Mapping[str, str], run_dir: Path) -> Tracked:
    """The trackers of a run as they are started: those that do not answer go to files."""
    plain = config.plain()
    given = {key.upper(): str(plain[key]) for key in KEYS if plain.get(key)}
    environ = {**environ, **given}
    said = asked(plain, environ)
    warnings = []
    if why := said.get("wandb"):
        given["WANDB_MODE"] = "offline"
        what = "this start is tracked offline; `wandb sync` uploads it later"
        warnings.append(f"W&B: {without_user(wandb_url(environ))} {why}; {what}")
    if why := said.get("mlflow"):
        given["MLFLOW_TRACKING_URI"] = f"sqlite:///{run_dir / STORE}"
        shown = without_user(environ["MLFLOW_TRACKING_URI"])
        warnings.append(f"MLflow: {shown} {why}; this start is tracked in {run_dir / STORE}")
    return Tracked(given, tuple(warnings))


def asked(plain: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with each tracker that is on and has somebody to ask, by name; nothing where
    nothing is. `plain`: Axolotl's keys."""
    questions = {name: (ask, lambda: f"does not answer in {PATIENCE:.0f} seconds")
                 for name, ask in _questions(plain, environ)}  # fmt: skip
    return dict(zip(questions, answers(list(questions.values()), PATIENCE), strict=True))


def resumed(config: RunConfig, environ: Mapping[str, str], run_dir: Path) -> dict[str, str]:
    """The variables with which a tracker goes on in the run that it has of this one.

    W&B takes an id that is made here. MLflow makes its own, which the plugin notes for each
    store. Whoever names one, by a variable or a key, is not overruled.
    """
    plain, told, made = config.plain(), read(run_dir), {}
    if _wandb_on(plain) and not (environ.get("WANDB_RUN_ID") or plain.get("wandb_run_id")):
        if "wandb" not in told:
            told["wandb"] = secrets.token_hex(4)
            files.write_json(run_dir / TRACKED, told)
        made = {"WANDB_RUN_ID": told["wandb"], "WANDB_RESUME": environ.get("WANDB_RESUME", "allow")}
    if _mlflow_on(plain) and not environ.get("MLFLOW_RUN_ID"):
        known = told.get("mlflow", {}).get(without_user(environ.get("MLFLOW_TRACKING_URI", "")))
        made |= {"MLFLOW_RUN_ID": known} if known else {}
    return made


def read(run_dir: Path) -> dict[str, Any]:
    """The ids under which trackers have this run; none where nobody has noted one."""
    try:
        told = files.read_json(run_dir / TRACKED)
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def note_mlflow(run_dir: Path, uri: str, id_: str) -> None:
    """Notes the run that MLflow has made in a store, for the next start."""
    told = read(run_dir)
    noted = {**told.get("mlflow", {}), without_user(uri): id_}
    files.write_json(run_dir / TRACKED, {**told, "mlflow": noted})


def _wandb_on(plain: Mapping[str, Any]) -> bool:
    return bool(plain.get("use_wandb") or plain.get("wandb_project"))


def _mlflow_on(plain: Mapping[str, Any]) -> bool:
    return bool(plain.get("use_mlflow") or plain.get("mlflow_experiment_name"))


def _questions(plain: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Any]:
    """The trackers that are on and have somebody to ask."""
    online = environ.get("WANDB_MODE", "").lower() not in _OFFLINE
    if _wandb_on(plain) and online and environ.get("WANDB_API_KEY"):
        yield "wandb", lambda: _wandb(environ)
    uri = environ.get("MLFLOW_TRACKING_URI", "")
    if _mlflow_on(plain) and uri.startswith(("http://", "https://")):
        yield "mlflow", lambda: _mlflow(uri, environ)


def wandb_url(environ: Mapping[str, str]) -> str:
    return environ.get("WANDB_BASE_URL", "").rstrip("/") or _WANDB


def _wandb(environ: Mapping[str, str]) -> str:
    """What is wrong with W&B or with its key, or nothing."""
    return _asked(
        "POST",
        f"{wandb_url(environ)}/graphql",
        auth=("api", environ["WANDB_API_KEY"].strip()),
        json={"query": "query { viewer { username } }"},
        refused=lambda answer: not (answer.json().get("data") or {}).get("viewer"),
    )


def _mlflow(uri: str, environ: Mapping[str, str]) -> str:
    """What is wrong with the MLflow server or with its login, or nothing."""
    user, token = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_TOKEN")
    password = environ.get("MLFLOW_TRACKING_PASSWORD", "")
    return _asked(
        "GET",
        f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": "Default"},
        auth=(user, password.strip()) if user else None,
        headers={"Authorization": f"Bearer {token.strip()}"} if token and not user else {},
        refused=lambda answer: False,
    )


def _asked(method: str, url: str, *, refused: Any, **request: Any) -> str:
    import httpx

    try:
        answer = httpx.request(method, url, timeout=PATIENCE, **request)
        if answer.status_code in (401, 403) or (answer.is_success and refused(answer)):
            return "refuses the key"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"cannot be reached ({type(error).__name__})"
    except (ValueError, AttributeError):
        return "answers with something else than JSON"
    return f"answers with status {answer.status_code}" if answer.is_server_error else ""
