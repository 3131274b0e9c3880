"""The workflows of a Python project as people write them: three interpreters to green; a tag built, uploaded to a package index and deployed by ssh."""

import base64
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import git
from tests.scenarios.test_workflows import run, statuses

from trunkline.adapters.executors.host import find_bubblewrap
from trunkline.execution.interpreters import all_interpreters

CI = """
name: Checks
on:
  push: {branches: [main, develop]}
  pull_request: {branches: [main, develop]}
jobs:
  build:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python-version: [VERSIONS]
    steps:
    - uses: actions/checkout@v2
    - name: Python
      uses: actions/setup-python@v2
      with: {python-version: "${{ matrix.python-version }}"}
    - name: Install
      run: |
        python -m pip install --upgrade pip
        python -m pip install pytest pytest-cov
        if [ -f requirements.txt ]; then pip install -r requirements.txt; fi
    - name: Test
      run: |
        python --version
        pytest --cov=./ --cov-report=xml
    - name: Coverage
      uses: codecov/codecov-action@v1
      with: {file: ./coverage.xml, fail_ci_if_error: true}
"""
CD = """
name: Ship
on:
  push: {tags: ['v*']}
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
    - uses: actions/checkout@v2
    - name: Python
      uses: actions/setup-python@v2
      with: {python-version: 'VERSION'}
    - name: Install
      run: |
        python -m pip install --upgrade pip
        python -m pip install build twine setuptools
        if [ -f requirements.txt ]; then pip install -r requirements.txt; fi
    - name: Build and upload
      env:
        TWINE_USERNAME: ${{ secrets.PYPI_USERNAME }}
        TWINE_PASSWORD: ${{ secrets.PYPI_PASSWORD }}
      run: |
        python -m build --no-isolation
        twine upload dist/*
    - name: Deploy
      uses: appleboy/ssh-action@master
      with:
        host: ${{ secrets.HOST }}
        username: ${{ secrets.USERNAME }}
        key: ${{ secrets.SSH_PRIVATE_KEY }}
        script: |
          cd /path/to/app
          git pull
          python -m pip install -r requirements.txt
          systemctl restart my-app
"""
PUBLISH = """
on: workflow_dispatch
jobs:
  publish:
    runs-on: ubuntu-latest
    steps:
    - uses: actions/checkout@v4
    - run: pip install build setuptools && python -m build --no-isolation
    - uses: pypa/gh-action-pypi-publish@release/v1
      with: {user: ann, password: "${{ secrets.PYPI_PASSWORD }}", repository-url: "INDEX"}
"""
PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "trunkline-sample"
version = "VERSION"
[tool.setuptools]
py-modules = ["sample"]
"""


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nobody listens on {port}")


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A project with tests."""
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT.replace("VERSION", "1.0"))
    (folder / "sample.py").write_text('"""A sample."""\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n    return a + b\n')
    (folder / "test_sample.py").write_text("from sample import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    return folder


def _write(folder: Path, **workflows: str) -> None:
    (folder / ".github/workflows").mkdir(parents=True, exist_ok=True)
    for name, text in workflows.items():
        (folder / f".github/workflows/{name}.yml").write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "work")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index that takes uploads from ann, whose password is `an-index-password`."""
    digest = base64.b64encode(hashlib.sha1(b"an-index-password").digest()).decode()
    (tmp_path / "htpasswd").write_text(f"ann:{{SHA}}{digest}\n")
    (tmp_path / "packages").mkdir()
    port = _free()
    command = [
        sys.executable,
        "-m",
        "pypiserver",
        "run",
        "-i",
        "127.0.0.1",
        "-p",
        str(port),
        "-P",
        str(tmp_path / "htpasswd"),
        str(tmp_path / "packages"),
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _answers(port)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def far_host(tmp_path: Path, sample: Path) -> Iterator[tuple[int, str, Path]]:
    """An sshd whose logins find the application in /path/to/app: its port, a private key, and the folder of the application there.

    systemctl is a stub that notes what it was asked for: there is no systemd here.
    """
    sshd, bubblewrap = shutil.which("sshd") or "/usr/sbin/sshd", find_bubblewrap()
    if not os.path.exists(sshd) or bubblewrap is None:
        pytest.skip("needs sshd and bubblewrap: apt install openssh-server, pip install 'trunkline[sandbox]'")
    top = tmp_path / "far"
    (top / "bin").mkdir(parents=True)
    (top / "bin/systemctl").write_text(f'#!/bin/sh\necho "$@" >> {top}/systemctl.log\n')
    (top / "bin/systemctl").chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", str(top / "venv")], check=True, timeout=120)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(top / name)], check=True, timeout=30)
    shutil.copy(top / "user.pub", top / "authorized_keys")
    inside = (
        f"{bubblewrap} --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --ro-bind /etc /etc "
        f"--proc /proc --dev /dev --ro-bind {sys.base_prefix} {sys.base_prefix} --bind {top} {top} --bind {sample} {sample} --bind {top}/app /path/to/app "
        f"--setenv PATH {top}/venv/bin:{top}/bin:/usr/bin:/bin --setenv HOME {top} -- /bin/bash -s"
    )
    (top / "shell").write_text(f"#!/bin/sh\nexec {inside}\n")
    (top / "shell").chmod(0o755)
    port = _free()
    (top / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {top}/host\nAuthorizedKeysFile {top}/authorized_keys\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nPidFile none\nForceCommand {top}/shell\n"
    )
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    server = subprocess.Popen([sshd, "-D", "-f", str(top / "sshd_config"), "-E", str(top / "sshd.log")])
    try:
        _answers(port)
        yield port, (top / "user").read_text(), top
    finally:
        server.terminate()
        server.wait(10)


def _versions(count: int) -> list[str]:
    found = sorted(
        {".".join(i.version.split(".")[:2]) for i in all_interpreters() if i.version >= "3.8" or i.version.startswith("3.1")},
        key=lambda v: int(v.split(".")[1]),
    )
    usable = [v for v in found if int(v.split(".")[1]) >= 9]
    if len(usable) < count:
        pytest.skip(f"needs {count} Pythons, this machine has {', '.join(found)}: uv python install 3.11 3.12 3.13")
    return usable[:count]


def test_the_matrix_of_interpreters_runs_green_and_a_second_time_from_warm_environments(sample: Path) -> None:
    try:
        versions = _versions(3)
    except pytest.skip.Exception:
        versions = _versions(1)
    _write(sample, ci=CI.replace("VERSIONS", ", ".join(f"'{v}'" for v in versions)))

    first = run(sample, code=0)
    again = run(sample, code=0)

    assert statuses(first) == {f"build ({v})": "passed" for v in versions}
    for version in versions:
        log = again["logs"][f"build ({version})"]
        assert f"Python {version}." in log
        assert "1 passed" in log
        assert "coverage: coverage.xml" in log
        assert re.search(r"environment \w+ reused", log)


def test_a_tag_is_built_uploaded_and_deployed_with_its_secrets_masked_everywhere(
    sample: Path, index: str, far_host: tuple[int, str, Path]
) -> None:
    port, key, far = far_host
    version = ".".join(map(str, sys.version_info[:2]))
    (sample / "requirements.txt").write_text("")
    _write(sample, cd=CD.replace("VERSION", version))
    git(far, "clone", "--quiet", str(sample), "app")
    (sample / "newer.txt").write_text("newer\n")
    git(sample, "add", "--all")
    git(sample, "commit", "--quiet", "--message", "newer")
    secrets = {
        "PYPI_USERNAME": "ann",
        "PYPI_PASSWORD": "an-index-password",
        "HOST": f"127.0.0.1:{port}",
        "USERNAME": os.environ.get("USER") or "root",
    }
    words = [w for n, v in secrets.items() for w in ("--secret", f"{n}={v}")]
    told = run(
        sample, "--tag", "v1.0", *words, "--secret", "SSH_PRIVATE_KEY", "-e", f"TWINE_REPOSITORY_URL={index}", env={"SSH_PRIVATE_KEY": key}
    )

    log = told["logs"]["deploy"]
    assert told["code"] == 0, log[-3000:] + (far / "sshd.log").read_text()[-1000:]
    assert "trunkline_sample-1.0-py3-none-any.whl" in urllib.request.urlopen(f"{index}simple/trunkline-sample/").read().decode()
    assert (far / "app/newer.txt").exists()
    assert (far / "systemctl.log").read_text() == "restart my-app\n"
    for secret in ("an-index-password", key.splitlines()[1], f"127.0.0.1:{port}"):
        assert secret not in log
    assert "[MASKED]" in log
    left = subprocess.run(["grep", "-rl", key.splitlines()[1], os.environ["TRUNKLINE_CACHE"]], capture_output=True, text=True, check=False)
    assert left.stdout == ""  # nothing of it stays on the disk

    wrong = run(sample, "--tag", "v1.0", *words[:4], "--secret", f"HOST=127.0.0.1:{_free()}", "--secret", "USERNAME=root", "--secret", f"SSH_PRIVATE_KEY={key}",
                "-e", f"TWINE_REPOSITORY_URL={index}")  # fmt: skip
    assert wrong["code"] == 1


def test_distributions_are_published_by_the_native_action(sample: Path, index: str) -> None:
    _write(sample, publish=PUBLISH.replace("INDEX", index))
    told = run(sample, "--event", "workflow_dispatch", "--secret", "PYPI_PASSWORD=an-index-password")
    assert told["code"] == 0, told["logs"]["publish"][-2000:]
    assert "published: trunkline_sample-1.0-py3-none-any.whl, trunkline_sample-1.0.tar.gz" in told["logs"]["publish"]
    twice = run(sample, "--event", "workflow_dispatch", "--secret", "PYPI_PASSWORD=an-index-password")
    assert "the upload to" in twice["jobs"]["publish"]["message"]
