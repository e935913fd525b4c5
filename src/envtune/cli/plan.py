"""The verb that tells what a training will take before it starts."""

import argparse
import json
import logging

from envtune.cli import configuration, plan_table
from envtune.cli.console import show, warn
from envtune.cli.termination import Result
from envtune.errors import Exit, Problem, Refused
from envtune.resolve.config import Configuration, RunConfig
from envtune.resolve.plan import levers, told
from envtune.resolve.plan.choose import Plan
from envtune.settings.own.place import PRICE

LOG = logging.getLogger("envtune")
# A machine on which a job is laid out to look for others that hold it.
_ANY = ("SFT_PRETEND_GPU=h100", "SFT_DEVICE=auto")
_ROOM = "SFT_IGNORE_MEMORY=true"


def plan(args: argparse.Namespace) -> Result:
    """tell memory, time and price of a training, and what else would do; starts nothing"""
    made, found = _planned(args)
    warn(made)
    if args.fits:
        _show_fits(list(levers.somewhere(found.job)), _prices(args.usd), as_json=args.json)
    elif args.json:
        show(json.dumps(figures(made.config), indent=2))
    else:
        show(plan_table.table(found, made.config.setting(PRICE), _kept(made.config)))
    return Exit.DONE, "planned"


def _planned(args: argparse.Namespace) -> tuple[Configuration, Plan]:
    """The configuration and its plan. Raises Refused where there is none."""
    room = [_ROOM] if args.fits else []
    made = configuration.configure([*args.overrides, *room])
    if args.fits and made.config.device == "cpu":
        made = configuration.configure([*args.overrides, *room, *_ANY])
    if made.config.plan is None:
        raise Refused([_none(made)])
    return made, made.config.plan


def _none(made: Configuration) -> Problem:
    """Why there is no plan."""
    if made.config.device == "cpu":
        what = "is not set and there is no GPU here; name one to plan for, e.g. h100x8"
        return Problem("SFT_PRETEND_GPU", what)
    model = made.config.axolotl["base_model"]
    if made.settings.passes_through:
        what = "is trained by RL or with images, which Axolotl is left to do: nothing is planned"
    elif not made.facts.model.config:
        what = f"{model.value} is not here and nobody was asked for its config.json"
    else:
        what = "is a model, or is trained in a way, that no formula here covers"
    return Problem(model.source, what)


def _prices(given: list[str]) -> dict[str, float]:
    """Dollars a GPU and hour by the card's name. Raises Refused."""
    prices = {}
    for text in given:
        name, _, price = text.partition("=")
        try:
            prices[name] = float(price)
        except ValueError:
            what = f"{text!r} is not allowed; allowed: a card and dollars an hour, e.g. h100=2.50"
            raise Refused([Problem("--usd", what)]) from None
    return prices


def _show_fits(plans: list[Plan], prices: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        priced = (
            told.figures(p, prices[p.job.card.name] * p.job.ranks)
            if p.job.card.name in prices
            else told.figures(p)
            for p in plans
        )
        show(json.dumps(list(priced), indent=2))
    elif plans:
        show(plan_table.fits(plans, prices))
    else:
        show("no machine of the table holds it")


def figures(config: RunConfig) -> dict[str, object] | None:
    """The plan of a configuration as figures, or None."""
    if config.plan is None:
        return None
    return told.figures(config.plan, config.setting(PRICE), _kept(config))


def _kept(config: RunConfig) -> int:
    kept = config.plain().get("save_total_limit")
    return kept if isinstance(kept, int) else 3


def summary(made: Configuration) -> list[str]:
    """The plan on a line, where there is one."""
    config = made.config
    if config.plan is None:
        return []
    return [f"plan: {plan_table.summary(config.plan, config.setting(PRICE))}"]
