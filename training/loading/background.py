"""An iterator whose items are made ahead of who takes them, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Iterator[T], Generic[T]):
    """Hands out what `source` yields, in its order. The thread starts when the first item is asked for.

    What goes wrong in the source is raised where the next item is asked for, again and again, once those made before
    are through.

    Args:
        source: its end, or :meth:`close`, ends the iteration; it is closed in the thread.
        ahead: items that may wait to be taken; one more is in the making.
        name: of the thread.
    """

    def __init__(self, source: Generator[T], ahead: int, name: str) -> None:
        self._source = source
        self._ahead = ahead
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._failure: BaseException | None = None
        # A daemon: a program that ends without closing must not hang.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __next__(self) -> T:
        with self._changed:
            if not (self._closed or self._thread.ident):
                self._thread.start()
            self._changed.wait_for(lambda: self._items or self._ended or self._closed)
            if self._closed or not (self._items or self._failure):
                raise StopIteration
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
        assert self._failure is not None
        raise self._failure

    @property
    def waiting(self) -> int:
        """Items that can be taken at once."""
        return len(self._items)

    def end(self) -> None:
        """Make no further items, and hand none out; does not wait for the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration and wait until the thread is through with the item in the making."""
        self.end()
        if self._thread.ident:
            self._thread.join()

    def _run(self) -> None:
        try:
            with closing(self._source):
                for item in self._source:
                    if not self._put(item):
                        break
        except BaseException as error:  # noqa: BLE001 - whatever it is, who asks for the next item raises it
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Wait for room; False when the iteration was closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._ahead or self._closed)
            self._items.append(item)
            self._changed.notify_all()
            return not self._closed
