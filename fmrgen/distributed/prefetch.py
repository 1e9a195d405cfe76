"""Reads and decodes the next items while the models are busy."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

Item = TypeVar("Item")

_LONGEST_ITEM = 2.0  # seconds within which the thread usually finishes its current item
_CHECK_INTERVAL = 0.5  # seconds after which a thread that waits for room checks whether its items are still wanted


def read_ahead(items: Iterator[Item], waiting: int) -> Iterator[Item]:
    """Yield `items`, drawn by a thread that runs at most `waiting` items ahead and ends with this iterator."""
    ready: queue.Queue[Any] = queue.Queue(waiting)
    end = object()
    is_closed = threading.Event()

    def put(item: Any) -> None:
        while not is_closed.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=_CHECK_INTERVAL)
                return

    def draw() -> None:
        try:
            for item in items:
                put(item)
                if is_closed.is_set():
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=draw, daemon=True, name="source")
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is end:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_closed.set()
        thread.join(_LONGEST_ITEM)  # a thread that is inside a library when the interpreter ends can abort it
