"""The way from the environment to a RunConfig: read, type, look, judge, resolve."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from envtune.checks import access, preflight
from envtune.resolve import rules
from envtune.resolve.config import Configuration
from envtune.resolve.look import look
from envtune.settings import given, sources


def configure(
    arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Configuration:
    """Each step once. Raises Refused with every problem that a step can see."""
    inputs = sources.with_documents(sources.read(arguments, environ))
    settings = given.settings(inputs)
    preflight.refuse_settings(settings)  # what is not worth a look
    facts = look(settings, inputs.environ)
    preflight.refuse(preflight.HERE, settings, facts)
    facts = access.verify(settings, facts)
    preflight.refuse(preflight.OF_THE_MODEL, settings, facts)
    config = rules.resolve(settings, facts)
    warnings = (*config.warnings, *preflight.warnings(settings, facts))
    return Configuration(replace(config, warnings=warnings), settings, inputs, facts)
