"""The way from the environment to a RunConfig: read, type, look, judge, resolve."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from envtune.checks import preflight
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
    facts = preflight.judged(settings, look(settings, inputs.environ))
    warnings = preflight.warnings(settings, facts)
    config = rules.resolve(settings, facts)
    config = replace(config, warnings=(*config.warnings, *warnings))
    return Configuration(config, settings, inputs, facts)
