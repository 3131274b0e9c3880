"""A bucket of an S3-compatible service, by obstore. Implements ports.blobs.

Its synchronous calls are used, in threads: the asynchronous ones may abort the process at its end.
"""

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from trunkline.kit.ids import token
from trunkline.model.errors import ConfigError, OutsideError

PIECE = 4 << 20


class Bucket:
    """`url`: s3://BUCKET/PREFIX. Without `key` and `secret` the usual AWS_* variables of the environment count, or what the machine's role gives."""

    def __init__(self, url: str, endpoint: str = "", key: str = "", secret: str = "", region: str = "") -> None:
        if importlib.util.find_spec("obstore") is None:
            raise ConfigError("a bucket needs obstore, which is not installed", "pip install 'trunkline[s3]'")
        if not url.startswith("s3://") or url == "s3://":
            raise ConfigError(f"blobs can't be {url!r}", "s3://BUCKET/PREFIX")
        from obstore.store import S3Store

        given = {
            "endpoint": endpoint,
            "access_key_id": key,
            "secret_access_key": secret,
            "region": region or os.environ.get("AWS_REGION", "us-east-1"),
        }
        options: Any = {"timeout": "300s", "connect_timeout": "5s"}
        if (endpoint or os.environ.get("AWS_ENDPOINT_URL", "")).startswith("http://"):
            options["allow_http"] = True
        config: Any = {name: value for name, value in given.items() if value}
        retries: Any = {"max_retries": 3}
        self.url = url
        self.store = S3Store.from_url(url, config=config, client_options=options, retry_config=retries)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as problem:  # "not found" is one of Python's own
            hint = "check the settings blobs, blobs_endpoint, blobs_key and blobs_secret"
            raise OutsideError(f"{self.url}: {what}: {_first_words(problem)}", hint) from None

    def check(self) -> None:
        """Put something and forget it."""
        import obstore

        name = f"check-{token('')}"
        with self._told("it can't be written to"):
            obstore.put(self.store, name, b"")
            obstore.delete(self.store, name)

    def put(self, name: str, path: str) -> None:
        """Send a file, in several parts where it is large."""
        import obstore

        with self._told(f"{name} can't be kept"), open(path, "rb") as f:
            obstore.put(self.store, name, f)

    def get(self, name: str, path: str) -> bool:
        """Fetch, as it flows."""
        import obstore

        with self._told(f"{name} can't be fetched"):
            try:
                found = obstore.get(self.store, name)
            except FileNotFoundError:
                return False
            with open(path, "wb") as f:
                for piece in found.stream(min_chunk_size=PIECE):
                    f.write(memoryview(piece))
            return True

    def names(self, prefix: str) -> list[str]:
        """List."""
        import obstore

        with self._told("it can't be listed"):
            return sorted(str(entry["path"]) for page in obstore.list(self.store, prefix) for entry in page)

    def delete(self, names: Iterable[str]) -> None:
        """Delete, many at a time."""
        import obstore

        wanted = list(names)
        with self._told("nothing can be deleted"):
            for at in range(0, len(wanted), 1000):
                obstore.delete(self.store, wanted[at : at + 1000])


def _first_words(problem: Exception) -> str:
    """Return what went wrong without how often it was tried and what the server sent."""
    first = str(problem).strip().partition("\n")[0].partition("<?xml")[0]
    return re.sub(r" in [\d.]+m?s.*? - ", ": ", first).rstrip(": ")[:300]
