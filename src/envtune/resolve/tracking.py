"""Weights & Biases: on with a key or in offline mode, else off. Never a prompt."""

from envtune.config import Choice, Chosen, Facts


def project(facts: Facts, chosen: Chosen) -> Choice | None:
    tracking = facts.tracking
    if chosen.get("use_wandb") is False or tracking.wandb_mode == "disabled":
        return None
    if not tracking.wandb_key and tracking.wandb_mode != "offline":
        return None
    why = "WANDB_API_KEY is set" if tracking.wandb_key else "WANDB_MODE=offline"
    return Choice(tracking.wandb_project or "envtune", why)


RULES = (("wandb_project", project),)
