"""What every bucket owes: ports.blobs."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trunkline.ports.blobs import Blobs


class BlobsContract:
    """Subclasses define the fixture `blobs`, an empty bucket."""

    def test_what_was_put_is_got_and_replaced_and_deleted(self, blobs: Blobs, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        blobs.check()
        for content in (b"first", b"", b"second \0" * 10):
            source.write_bytes(content)
            blobs.put("artifacts/1/a b-ü.zip", str(source))
            assert blobs.get("artifacts/1/a b-ü.zip", str(target))
            assert target.read_bytes() == content

        blobs.delete(["artifacts/1/a b-ü.zip", "artifacts/1/never.zip"])

        assert not blobs.get("artifacts/1/a b-ü.zip", str(target))
        assert blobs.names("artifacts") == []

    def test_a_large_file_comes_back_whole(self, blobs: Blobs, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(os.urandom(1 << 20) * 30)

        blobs.put("large", str(source))

        assert blobs.get("large", str(target))
        assert target.read_bytes() == source.read_bytes()

    def test_names_are_those_below_a_prefix_in_order(self, blobs: Blobs, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"x")
        names = [f"runs/{n}/{m}" for n in (1, 10, 2) for m in range(3)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda name: blobs.put(name, str(source)), names))

        assert blobs.names("runs/1") == ["runs/1/0", "runs/1/1", "runs/1/2"]
        assert blobs.names("runs") == sorted(names)
        blobs.delete(names)
        assert blobs.names("runs") == []
