"""Bounded parallelism: a few calls at the same time, their outcomes in the order of the inputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from cdc_client.errors import CdcError

Progress: TypeAlias = Callable[[int, int | None], None]  # number done, number of all where it is known
ITEM_ERRORS = (CdcError, OSError, TypeError, ValueError)  # what a single item can fail with
S = TypeVar("S")
T = TypeVar("T")


def in_order(work: Callable[[S], T], items: Iterable[S], concurrency: int) -> Iterator[Future[T]]:
    """Do `work` on each item in threads; yield what became of it, ended, in the order of the items.

    Items are taken as needed: at most `concurrency` are under way or ahead of what has been yielded. Closing the
    iterator starts no further item and waits for those under way.

    Raises:
        ValueError: `concurrency` is below 1.
    """
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(concurrency) as threads:
        try:
            for item in items:
                if len(pending) >= concurrency:
                    yield _ended(pending.popleft())
                pending.append(threads.submit(work, item))
            while pending:
                yield _ended(pending.popleft())
        finally:
            for future in pending:
                future.cancel()


def _ended(future: Future[T]) -> Future[T]:
    future.exception()  # waits
    return future
