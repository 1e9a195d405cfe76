"""Reads and decodes the next items while the models are busy."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

Item = TypeVar("Item")

_LONGEST_ITEM = 2.0  # seconds within which the thread usually finishes its current item


def read_ahead(items: Iterator[Item], waiting: int) -> Iterator[Item]:
    """Yield `items`, drawn by a thread that runs at most `waiting` items ahead and ends with this iterator."""
    end = object()
    thread = ThreadPoolExecutor(1, thread_name_prefix="source")
    drawn: deque[Future[Any]] = deque()
    try:
        while True:
            while len(drawn) <= waiting:
                drawn.append(thread.submit(next, items, end))
            item = drawn.popleft().result()
            if item is end:
                return
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
        wait([future for future in drawn if future.running()], _LONGEST_ITEM)
