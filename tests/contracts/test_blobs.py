"""Every bucket against its contract, and against what can befall a real one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contracts.seaweed import KEY, SECRET, seaweed

from trunkline.adapters.blobs.bucket import Bucket
from trunkline.model.errors import ConfigError, OutsideError
from trunkline.testing.blobs import InMemory
from trunkline.testing.contracts.blobs import BlobsContract


class TestInMemory(BlobsContract):
    """What quick tests use."""

    @pytest.fixture
    def blobs(self) -> InMemory:
        return InMemory()


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """An S3-compatible service."""
    with seaweed() as address:
        yield address


@pytest.mark.real
class TestBucket(BlobsContract):
    """A bucket of SeaweedFS."""

    @pytest.fixture
    def blobs(self, service: str, request: pytest.FixtureRequest) -> Bucket:
        return Bucket(f"s3://tests/{abs(hash(request.node.name))}", service, KEY, SECRET)

    def test_whoever_has_the_wrong_secret_is_told_so(self, service: str) -> None:
        with pytest.raises(OutsideError, match="privileges") as told:
            Bucket("s3://tests/x", service, KEY, "wrong").check()
        assert "<?xml" not in told.value.message
        assert "blobs_secret" in told.value.hint

    def test_a_service_that_does_not_answer_is_told_so(self, tmp_path: Path) -> None:
        bucket = Bucket("s3://tests/x", "http://127.0.0.1:9", KEY, SECRET)
        with pytest.raises(OutsideError, match="can't be written to"):
            bucket.check()
        with pytest.raises(OutsideError, match="can't be fetched"):
            bucket.get("x", str(tmp_path / "x"))

    def test_an_address_that_is_none_is_refused(self) -> None:
        for url in ("", "s3://", "bucket", "http://x/y"):
            with pytest.raises(ConfigError, match="blobs can't be"):
                Bucket(url)
