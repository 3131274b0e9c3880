"""One thread that does many small things of the event loop's in one go. A thread for each would spend most of its time waiting for Python's lock."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Clerk:
    """Does what it is asked for in the order in which it was asked. For things that wait for the disk at most: the next one waits for them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def do(self, what: Callable[[], T]) -> T:
        """Let it be done; return or raise what comes of it."""
        if self.thread is None:
            self.loop = asyncio.get_running_loop()
            self.thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self.thread.start()
        assert self.loop is not None
        future: asyncio.Future[T] = self.loop.create_future()
        self.asked.put((what, future))
        return await future

    def _work(self) -> None:
        assert self.loop is not None
        while True:
            batch = [self.asked.get()]
            while not self.asked.empty() and len(batch) < 64:
                batch.append(self.asked.get())
            done: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
            for what, future in batch:
                try:
                    done.append((future, what(), None))
                except Exception as problem:  # noqa: BLE001 - it belongs to whoever asked
                    done.append((future, None, problem))
            try:
                self.loop.call_soon_threadsafe(_tell, done)
            except RuntimeError:  # the loop has been closed: nobody waits any more
                return


def _tell(done: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, value, problem in done:
        if future.done():  # whoever asked has gone
            continue
        if problem is None:
            future.set_result(value)
        else:
            future.set_exception(problem)
