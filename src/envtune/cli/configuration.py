"""The way from the environment to a RunConfig: read, type, fetch, look, judge, resolve."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from envtune.checks import preflight
from envtune.resolve import rules
from envtune.resolve.config import Configuration
from envtune.resolve.look import look
from envtune.settings import given, sources
from envtune.transfer import remote


def configure(
    arguments: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    *,
    fetch: bool = False,
) -> Configuration:
    """Each step once. Raises Refused with every problem that a step can see.

    `fetch`: data of stores and web servers comes into the caches; else nobody is asked for it.
    """
    inputs = sources.with_documents(sources.read(arguments, environ))
    settings = given.settings(inputs)
    preflight.refuse_settings(settings)  # what is not worth a look
    if fetch and (far := remote.unfetched(settings)):
        # Nothing is fetched for a start that cannot come to its end.
        preflight.judged(far, look(far, inputs.environ))
    settings = remote.located(settings, inputs.environ, fetch=fetch)
    facts = preflight.judged(settings, look(settings, inputs.environ))
    warnings = preflight.warnings(settings, facts)
    config = rules.resolve(settings, facts)
    warnings += preflight.planned(config)
    config = replace(config, warnings=(*config.warnings, *warnings))
    return Configuration(config, settings, inputs, facts)
