"""Which trackers answer, asked before training starts: a dead one costs no run.

Where the service does not answer, or refuses the key, the run is tracked into its own
folder instead, from where it can be sent later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.redaction import without_user
from envtune.resolve.config import RunConfig
from envtune.runs.contents import STORE
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
    questions = {name: (ask, lambda: f"does not answer in {PATIENCE:.0f} seconds")
                 for name, ask in _questions(plain, environ)}  # fmt: skip
    said = dict(zip(questions, answers(list(questions.values()), PATIENCE), strict=True))
    warnings = []
    if why := said.get("wandb"):
        given["WANDB_MODE"] = "offline"
        what = "this start is tracked offline; `wandb sync` uploads it later"
        warnings.append(f"W&B: {without_user(_wandb_url(environ))} {why}; {what}")
    if why := said.get("mlflow"):
        given["MLFLOW_TRACKING_URI"] = f"sqlite:///{run_dir / STORE}"
        shown = without_user(environ["MLFLOW_TRACKING_URI"])
        warnings.append(f"MLflow: {shown} {why}; this start is tracked in {run_dir / STORE}")
    return Tracked(given, tuple(warnings))


def _questions(plain: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Any]:
    """The trackers that are on and have somebody to ask."""
    online = environ.get("WANDB_MODE", "").lower() not in _OFFLINE
    on = plain.get("use_wandb") or plain.get("wandb_project")
    if on and online and environ.get("WANDB_API_KEY"):
        yield "wandb", lambda: _wandb(environ)
    uri = environ.get("MLFLOW_TRACKING_URI", "")
    on = plain.get("use_mlflow") or plain.get("mlflow_experiment_name")
    if on and uri.startswith(("http://", "https://")):
        yield "mlflow", lambda: _mlflow(uri, environ)


def _wandb_url(environ: Mapping[str, str]) -> str:
    return environ.get("WANDB_BASE_URL", "").rstrip("/") or _WANDB


def _wandb(environ: Mapping[str, str]) -> str:
    """What is wrong with W&B or with its key, or nothing."""
    return _asked(
        "POST",
        f"{_wandb_url(environ)}/graphql",
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
