"""What a job can prove: its own token for the server, id tokens for others, and the secrets that a vault gives for those."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from tests.conftest import git
from tests.e2e.conftest import Server, project


class FakeVault:
    """Stands in for HashiCorp Vault, which can't be had here: the JWT auth method and KV version 2, as its HTTP API documents them.

    Strict: it verifies each token with the keys that the server publishes, its issuer, audience and bound claims, and refuses what Vault would.
    """

    def __init__(self, issuer: str) -> None:
        self.issuer, self.sessions, self.refused = issuer, set[str](), list[str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/auth/jwt/login":
                    self.answer(404, {"errors": []})
                elif problem := outer.objection(body):
                    outer.refused.append(problem)
                    self.answer(400, {"errors": [problem]})
                else:
                    outer.sessions.add("s.token")
                    self.answer(200, {"auth": {"client_token": "s.token", "lease_duration": 60}})

            def do_GET(self) -> None:
                if self.headers.get("X-Vault-Token") not in outer.sessions:
                    self.answer(403, {"errors": ["permission denied"]})
                elif self.path == "/v1/ops/data/production/db":
                    self.answer(200, {"data": {"data": {"password": "hunter-and-gatherer"}, "metadata": {"version": 1}}})
                else:
                    self.answer(404, {"errors": []})

            def answer(self, status: int, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def objection(self, body: dict[str, Any]) -> str:
        """Say what is wrong with a login."""
        with urllib.request.urlopen(f"{self.issuer}/.well-known/openid-configuration") as reply:
            found = json.load(reply)
        with urllib.request.urlopen(found["jwks_uri"]) as reply:
            keys = KeySet.import_key_set(json.load(reply))
        try:
            claims = jwt.decode(body["jwt"], keys, algorithms=["RS256"]).claims
        except (JoseError, ValueError) as wrong:
            return f"error validating token: {wrong}"
        jwt.JWTClaimsRegistry().validate(claims)
        bound = {"iss": found["issuer"], "aud": "https://vault.test", "project_path": "team/project", "ref": "main", "ref_type": "branch"}
        wrong_claims = [name for name, value in bound.items() if claims.get(name) != value]
        if body.get("role") != "ci":
            return f'role "{body.get("role")}" could not be found'
        return f"claim {wrong_claims[0]!r} does not match" if wrong_claims else ""


@pytest.fixture
def vault(server: Server) -> Iterator[FakeVault]:
    """A vault that trusts the server."""
    made = FakeVault(server.url)
    yield made
    made.server.shutdown()
    made.server.server_close()


PIPELINE = """
variables: {VAULT_SERVER_URL: ADDRESS, VAULT_AUTH_ROLE: ci}
take:
  id_tokens: {ID: {aud: AUDIENCE}}
  secrets:
    PASSWORD: {vault: production/db/password@ops, file: false}
    FILE: {vault: {engine: {name: kv-v2, path: ops}, path: production/db, field: password}}
  script:
    - echo "length ${#PASSWORD} and in the file $(wc -c < $FILE), not shown = $PASSWORD"
    - echo "the claim $(echo $ID | cut -d. -f2 | tr _- /+ | base64 -d 2>/dev/null | grep -o '"sub":"[^"]*"')"
    - echo "token $ID"
"""


def test_a_job_opens_a_vault_with_its_id_token(server: Server, vault: FakeVault, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", PIPELINE.replace("ADDRESS", vault.url).replace("AUDIENCE", "https://vault.test")))
    run = server.until_ended(1)
    log = server.trace(run["jobs"]["take"]["id"])
    assert run["status"] == "passed", log
    assert "length 19 and in the file 19, not shown = [MASKED]" in log
    assert '"sub":"project_path:team/project:ref_type:branch:ref:main"' in log
    assert "token [MASKED]" in log


def test_what_the_vault_refuses_is_said_and_fails_the_job(server: Server, vault: FakeVault, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", PIPELINE.replace("ADDRESS", vault.url).replace("AUDIENCE", "https://other.test")))
    job = server.until_ended(1)["jobs"]["take"]
    assert job["status"] == "failed"
    assert job["message"] == "secret PASSWORD: the vault refused auth/jwt/login: 400 (claim 'aud' does not match)"


def test_a_jobs_token_fetches_and_reads_artifacts_and_nothing_more(server: Server, tmp_path: Path) -> None:
    pipeline = """
    stages: [a, b]
    make: {stage: a, script: [echo made > made.txt], artifacts: {paths: [made.txt]}}
    use:
      stage: b
      dependencies: []
      script:
        - git clone --quiet $CI_REPOSITORY_URL clone && ls clone/.gitlab-ci.yml
        - 'python3 -c "import os,urllib.request as u; print(u.urlopen(u.Request(os.environ[\\"CI_PROJECT_URL\\"].rsplit(\\"/\\",2)[0] + \\"/api/v1/projects/team/project/artifacts/main/raw/made.txt?job=make\\", headers={\\"JOB-TOKEN\\": os.environ[\\"CI_JOB_TOKEN\\"]})).read())"'
        - echo "$CI_JOB_TOKEN" | rev > token.txt
      artifacts: {paths: [token.txt]}
    """
    server.push(project(tmp_path / "p", pipeline))
    run = server.until_ended(1)
    log = server.trace(run["jobs"]["use"]["id"])
    assert run["status"] == "passed", log
    assert "clone/.gitlab-ci.yml" in log
    assert "b'made\\n'" in log
    token = server.request("GET", f"/api/v1/jobs/{run['jobs']['use']['id']}/artifacts/token.txt")[1].decode().strip()[::-1]
    assert token.startswith("glcbt-")
    assert server.request("GET", "/api/v1/runs", headers={"JOB-TOKEN": token})[0] == 401  # it has ended with its job


def test_a_running_jobs_token_may_not_push_or_look_around(server: Server, tmp_path: Path) -> None:
    pipeline = """
    try:
      script:
        - git push $CI_REPOSITORY_URL HEAD:refs/heads/other && exit 1 || echo "no push"
        - 'python3 -c "import os,urllib.request as u; u.urlopen(u.Request(os.environ[\\"CI_SERVER_URL\\"] + \\"/api/v1/runs\\", headers={\\"JOB-TOKEN\\": os.environ[\\"CI_JOB_TOKEN\\"]}))" 2>&1 | tail -1 || true'
    """
    server.protect()
    folder = project(tmp_path / "p", pipeline)
    server.push(folder)
    run = server.until_ended(1)
    log = server.trace(run["jobs"]["try"]["id"])
    assert run["status"] == "passed", log
    assert "no push" in log
    assert "403" in log
    assert "other" not in git(folder, "ls-remote", "--heads", str(server.data / "repositories/team/project.git"))


def test_hooks_run_before_the_sources_and_their_failure_counts(server: Server, tmp_path: Path) -> None:
    pipeline = """
    good: {hooks: {pre_get_sources_script: ['echo "before $CI_JOB_NAME"']}, script: ['echo script']}
    bad: {hooks: {pre_get_sources_script: ['exit 9']}, script: ['echo never']}
    """
    server.push(project(tmp_path / "p", pipeline))
    jobs = server.until_ended(1)["jobs"]
    log = server.trace(jobs["good"]["id"])
    assert "before good" in log, log
    assert log.index("before good") < log.index("Getting the files") < log.index("\nscript")
    assert (jobs["bad"]["exit_code"], "never\n" in server.trace(jobs["bad"]["id"])) == (9, False)
