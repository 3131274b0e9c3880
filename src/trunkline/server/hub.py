"""Tells open pages what changed. Threads publish, the event loop delivers; a slow reader gets the newest state, never a backlog."""

import asyncio
from typing import Any


class Hub:
    """Topics and who listens to them."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.listeners: dict[str, set[asyncio.Queue[dict[str, Any] | None]]] = {}

    def publish(self, topic: str, message: dict[str, Any]) -> None:
        """Tell everybody who listens to the topic; safe from any thread."""
        if self.loop is not None and topic in self.listeners and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._deliver, topic, message)

    def _deliver(self, topic: str, message: dict[str, Any]) -> None:
        for listener in self.listeners.get(topic, ()):
            if listener.full():
                listener.get_nowait()
            listener.put_nowait(message)

    def join(self, topics: list[str]) -> "asyncio.Queue[dict[str, Any] | None]":
        """Listen to topics; the queue ends with None when the server stops."""
        listener: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(100)
        for topic in topics:
            self.listeners.setdefault(topic, set()).add(listener)
        return listener

    def leave(self, topics: list[str], listener: "asyncio.Queue[dict[str, Any] | None]") -> None:
        """Stop listening."""
        for topic in topics:
            self.listeners.get(topic, set()).discard(listener)
            if not self.listeners.get(topic):
                self.listeners.pop(topic, None)

    def close(self) -> None:
        """End every open stream: a server would wait for them for ever."""
        for listener in {q for group in self.listeners.values() for q in group}:
            if listener.full():
                listener.get_nowait()
            listener.put_nowait(None)
