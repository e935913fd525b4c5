"""Trackers: each is on by its own variable, else off. Never a prompt."""

from envtune.resolve.config import Choice, Chosen, Facts

_PROJECT = "envtune"


def project(facts: Facts, chosen: Chosen) -> Choice | None:
    tracking = facts.tracking
    if chosen.get("use_wandb") is False or tracking.wandb_mode == "disabled":
        return None
    if not tracking.wandb_key and tracking.wandb_mode != "offline":
        return None
    why = "WANDB_API_KEY is set" if tracking.wandb_key else "WANDB_MODE=offline"
    return Choice(tracking.wandb_project or _PROJECT, why)


def mlflow(facts: Facts, chosen: Chosen) -> Choice | None:
    named = facts.tracking.mlflow_uri or chosen.get("mlflow_tracking_uri")
    return Choice(True, "an MLflow address is set") if named else None


def experiment(facts: Facts, chosen: Chosen) -> Choice | None:
    if not chosen.get("use_mlflow"):
        return None
    return Choice(facts.tracking.mlflow_experiment or _PROJECT, "where MLflow puts the run")


def tensorboard(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(True, "TENSORBOARD_LOGGING_DIR is set") if facts.tracking.tensorboard else None


RULES = (
    ("wandb_project", project),
    ("use_mlflow", mlflow),
    ("mlflow_experiment_name", experiment),
    ("use_tensorboard", tensorboard),
)
