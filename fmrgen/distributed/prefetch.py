"""Work of the source side while the models are busy."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

Item = TypeVar("Item")

_LONGEST_ITEM = 2.0  # seconds in which the thread has mostly come back with the item that it is at
_LOOK_UP = 0.5  # seconds after which a thread that waits for room looks whether anyone still wants its items


def read_ahead(items: Iterator[Item], waiting: int) -> Iterator[Item]:
    """`items`, drawn by a thread of their own that runs at most `waiting` items ahead; it ends with this iterator."""
    ready: queue.Queue[Any] = queue.Queue(waiting)
    end = object()
    left = threading.Event()

    def put(item: Any) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=_LOOK_UP)
                return

    def draw() -> None:
        try:
            for item in items:
                put(item)
                if left.is_set():
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=draw, daemon=True, name="source")
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        thread.join(_LONGEST_ITEM)  # one that is inside a library when the interpreter ends can abort it
