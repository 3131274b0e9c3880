"""GitHub's containers, services and Docker actions, in a real engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeRepository
from tests.e2e.engine import NAMESPACE

pytestmark = pytest.mark.real

ACTION = {
    "greet/action.yml": """
name: greet
inputs: {who: {default: world}}
outputs: {greeting: {description: what it says}}
runs: {using: docker, image: Dockerfile, args: ["${{ inputs.who }}"], env: {EXTRA: more}}
""",
    "greet/Dockerfile": 'FROM debian:12\nCOPY entry.sh /entry.sh\nENTRYPOINT ["bash", "/entry.sh"]\n',
    "greet/entry.sh": """
echo "hello $1 $INPUT_WHO $EXTRA in $PWD, home $HOME"
[ "$GITHUB_WORKSPACE" = "$PWD" ] && ls greet && echo "greeting=hi $1" >> $GITHUB_OUTPUT
echo made > made-by-action
""",
}


def _run(folder: Path, docker: str, *words: str, code: int = 0) -> dict[str, Any]:
    """Run where the engine's published ports are those of the loopback."""
    env = {**os.environ, "TRUNKLINE_EXECUTOR": "auto", "DOCKER_HOST": docker}
    command = ["nsenter", f"--net=/run/netns/{NAMESPACE}", sys.executable, "-m", "trunkline", "run", "--json", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return {j["name"]: {**j, "text": Path(j["log"]).read_text()} for j in told["jobs"]}


def test_a_job_in_a_container_with_a_service_and_docker_actions(repository: MakeRepository, docker: str, images: dict[str, str]) -> None:
    workflow = """
on: push
env: {TOP: level}
jobs:
  box:
    runs-on: ubuntu-latest
    strategy: {matrix: {pg: ["13"]}}
    container: {image: "debian:12", env: {FOO: "bar ${{ env.TOP }}"}, options: --hostname boxy --cpus 1}
    services:
      db:
        image: postgres:${{ matrix.pg }}
        env: {POSTGRES_PASSWORD: secret}
        options: --health-cmd "pg_isready -h 127.0.0.1" --health-interval 1s --health-retries 20
    steps:
      - uses: actions/checkout@v4
      - id: first
        run: |
          echo "I am $FOO on $(cat /proc/sys/kernel/hostname)"
          echo "X=y" >> $GITHUB_ENV
          echo "out=1" >> $GITHUB_OUTPUT
          (exec 3<>/dev/tcp/db/5432) && echo reached
      - run: echo "got $X ${{ steps.first.outputs.out }}"
      - {uses: ./greet, id: greet, with: {who: "me and you"}}
      - run: echo "${{ steps.greet.outputs.greeting }}, $(cat made-by-action)"
      - {uses: "docker://alpine:latest", with: {args: "echo from alpine"}}
"""
    folder = repository({".github/workflows/ci.yml": workflow, **ACTION})

    text = _run(folder, docker)["box (13)"]["text"]

    for said in ("I am bar level on boxy", "reached", "got y 1", "hello me and you me and you more in /github/workspace, home /github/home",
                 "hi me and you, made", "from alpine"):  # fmt: skip
        assert said in text, text
    assert "image reused: Dockerfile and the files beside it have not changed" in _run(folder, docker)["box (13)"]["text"]


def test_services_of_a_job_on_the_machine_are_on_its_loopback(repository: MakeRepository, docker: str, images: dict[str, str]) -> None:
    workflow = """
on: push
jobs:
  plain:
    runs-on: ubuntu-latest
    services:
      db: {image: "postgres:13", env: {POSTGRES_PASSWORD: secret}, ports: ["5432", "54329:5432"]}
    steps:
      - run: (exec 3<>/dev/tcp/127.0.0.1/54329) && echo "reached ${{ job.services.db.ports['5432'] }}"
"""
    assert "reached 54329" in _run(repository({".github/workflows/ci.yml": workflow}), docker)["plain"]["text"]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("services: {db: {image: 'postgres:13'}}", "service postgres:13 has ended with exit code 1"),
        ("container: {image: 'debian:12', options: '--network host'}", "the option --network is not known or not allowed here"),
        ("container: {image: 'debian:12', options: '--privileged'}", "docker_privileged = 'debian:12'"),
        ("container: {image: 'debian:12', volumes: ['/etc:/machine']}", "is a path of the machine"),
        ("container: 'debian:${{ fromJSON(1) }}'", "debian:1"),
    ],
)
def test_what_does_not_come_up_or_is_not_allowed_fails_with_the_reason(
    repository: MakeRepository, docker: str, images: dict[str, str], job: str, said: str
) -> None:
    workflow = f"on: push\njobs:\n  job:\n    runs-on: x\n    {job}\n    steps: [{{run: 'true'}}]\n"

    told = _run(repository({".github/workflows/ci.yml": workflow}), docker, code=1)

    assert said in told["job"]["text"]
