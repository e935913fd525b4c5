"""Several questions to the network, asked at once and given up together."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Answer = TypeVar("Answer")


def answers(
    questions: Sequence[tuple[Callable[[], Answer], Callable[[], Answer]]], seconds: float
) -> list[Answer]:
    """Each question's answer, or what its second half says when that takes too long.

    Threads of our own: an executor's are waited for at exit, however long a name server hangs.
    """
    from concurrent.futures import Future, wait

    def settle(future: Future[Answer], ask: Callable[[], Answer]) -> None:
        try:
            future.set_result(ask())
        except Exception as error:
            future.set_exception(error)

    futures: list[Future[Answer]] = [Future() for _ in questions]
    for future, (ask, _) in zip(futures, questions, strict=True):
        threading.Thread(target=settle, args=(future, ask), daemon=True).start()
    wait(futures, timeout=seconds)
    return [
        future.result() if future.done() else give_up()
        for future, (_, give_up) in zip(futures, questions, strict=True)
    ]
