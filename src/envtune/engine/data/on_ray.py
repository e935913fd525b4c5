"""Ids that are made by tasks of Ray Data, on a cluster or on this machine's cores.

The rows are read here, some batches for each core at a time, so that the cluster holds no more of
them. A task whose process dies is done again by another.
"""

import pickle
from collections.abc import Iterator
from typing import Any

from envtune.engine.data.backend import Backend
from envtune.engine.data.making import Done, Maker, Task, Way
from envtune.errors import Exit, Problem, Refused

# Batches at a time for each core.
_AHEAD = 4
# Of a process of Ray's: what it has loaded for the tasks of one preparation.
_LOADED: dict[bytes, Maker] = {}


class OnRay:
    """`address`: a cluster's, whose machines have envtune; None: a cluster of this machine's own.

    Raises Refused where there is no Ray, or no cluster.
    """

    def __init__(self, maker: Maker, address: str | None, cores: int) -> None:
        try:
            import ray
            import ray.data
        except ImportError:
            what = "SFT_PREPARE_ENGINE=ray: Ray is not installed here: pip install ray"
            raise Refused([Problem("", what, Exit.CONFIG)]) from None
        here = {"address": "local", "num_cpus": cores, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(
                **({"address": address} if address else here),
                include_dashboard=None if address else False, log_to_driver=False,
            )  # fmt: skip
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            what = f"no Ray cluster at RAY_ADDRESS={address}: {str(error).splitlines()[0]}"
            raise Refused([Problem("", what, Exit.NETWORK)]) from None
        ray.data.DataContext.get_current().enable_progress_bars = False
        self.maker, self.most = maker, _AHEAD * int(ray.cluster_resources()["CPU"])

    def made(self, rows: Iterator[Way]) -> Iterator[Done]:
        """In the order of the rows. Raises Beyond, Differs."""
        tasks: list[Task] = []
        for keys, batch in rows:
            task = self.maker.task(keys, batch)
            if task:
                tasks.append(task)
            if task is None or len(tasks) == self.most:
                yield from self._carried_out(tasks)
                tasks = []
            if task is None:
                yield self.maker.make(keys, batch)
        yield from self._carried_out(tasks)

    def close(self) -> None:
        """Ends this machine's cluster, or leaves the other one."""
        import ray

        ray.shutdown()

    def _carried_out(self, tasks: list[Task]) -> Iterator[Done]:
        import ray.data

        if not tasks:
            return
        backend = self.maker.backend
        spec = pickle.dumps((dict(self.maker.config), backend.loaded, backend.slow))
        rows = [{"number": i, "task": pickle.dumps(task)} for i, task in enumerate(tasks)]
        given = ray.data.from_items(rows, override_num_blocks=len(rows))
        made = given.map(_carry_out, fn_kwargs={"spec": spec})
        done = {row["number"]: row["done"] for row in made.iter_rows()}
        for number in range(len(rows)):
            one = pickle.loads(done[number])
            if isinstance(one, Exception):
                raise one
            yield one


def _carry_out(row: dict[str, Any], spec: bytes = b"") -> dict[str, Any]:
    """One task, in a process of Ray's. An error is a result: Ray would wrap it."""
    if spec not in _LOADED:
        config, loaded, slow = pickle.loads(spec)
        _LOADED.clear()
        _LOADED[spec] = Maker(config, Backend(loaded, slow))
    done: Done | Exception
    try:
        done = _LOADED[spec].carry_out(pickle.loads(row["task"]))
    except Exception as error:
        done = error
    return {"number": row["number"], "done": pickle.dumps(done)}
