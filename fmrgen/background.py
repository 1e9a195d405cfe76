"""Work of the source side while the models are busy."""

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterator[Item], waiting: int) -> Iterator[Item]:
    """`items`, drawn by a thread of their own that runs at most `waiting` items ahead."""
    ready: queue.Queue[Any] = queue.Queue(waiting)
    end = object()

    def draw() -> None:
        try:
            for item in items:
                ready.put(item)
            ready.put(end)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=draw, daemon=True, name="source").start()
    while (item := ready.get()) is not end:
        if isinstance(item, BaseException):
            raise item
        yield item
