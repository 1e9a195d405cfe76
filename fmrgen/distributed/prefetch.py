"""Reads and decodes the next items while the models are busy."""

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")

_LONGEST_ITEM = 2.0  # seconds within which the thread usually finishes its current item


def read_ahead(items: Iterator[Item], waiting: int) -> Iterator[Item]:
    """Yield `items`, drawn by a thread that runs at most `waiting` items ahead and ends with this iterator."""
    drawn: SimpleQueue[Any] = SimpleQueue()
    room, end, is_wanted = Semaphore(waiting), object(), True

    def draw() -> None:
        try:
            for item in items:
                drawn.put(item)
                room.acquire()
                if not is_wanted:
                    return
            drawn.put(end)
        except BaseException as error:
            drawn.put(error)

    # A daemon, as no thread of a pool is: a program that fails ends although its source is stuck.
    thread = Thread(target=draw, daemon=True, name="source")
    thread.start()
    try:
        while (item := drawn.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item
    finally:
        is_wanted = False
        room.release()
        thread.join(_LONGEST_ITEM)  # a thread that is inside a library when the interpreter ends can abort it
