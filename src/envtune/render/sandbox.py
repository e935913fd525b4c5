"""The child that lays out a user's template, and can neither last long nor grow large.

Jinja's sandbox keeps a template from the machine, not from a loop or a text without end. A
limit of memory and a timer that kills hold whatever it does, and no secret is in there.
"""

import json
import resource
import signal
from pathlib import Path

from envtune import files
from envtune.errors import Refused
from envtune.render import yaml_files
from envtune.resolve.config import Value

# Of a processor, since a machine may pause; a template that can open nothing cannot sleep.
SECONDS = 5.0
MEMORY = 256 * 2**20
# What it is told and what it answers, in the folder where it runs.
ORDER, RESULT = "order.json", "result.json"


def _limit() -> None:
    """The timer's signal has no handler: the kernel ends the process, whatever it is at."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)


def main() -> None:
    order = json.loads(Path(ORDER).read_text())
    values = {key: Value(**value) for key, value in order["values"].items()}
    template = Path(order["template"])
    _limit()
    try:
        result = {"yaml": yaml_files.lay_out(values, template)}
    except Refused as refused:
        result = {"refused": str(refused)}
    except MemoryError:
        why = f"needs more than {MEMORY >> 20} MiB of memory"
        result = {"refused": str(yaml_files.refused(template, why))}
    files.write_json(Path(RESULT), result, durable=False)


if __name__ == "__main__":
    main()
