"""What a running job may prove: its own token for this server, and id tokens for others.

Job tokens live in memory and as long as their attempt; they are signed, so that a server knows those that another one has issued, as long as their
attempt runs. Id tokens are JSON Web Tokens signed with RS256 (OpenID Connect Core 1.0; claims as GitLab
documents them for CI/CD ID tokens); the key lies in the server's folder and is made when it is first needed.
"""

import hmac
import os
import struct
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.kit.ids import digest, token
from trunkline.kit.record import record
from trunkline.model.runs import JobRun, Run, Status
from trunkline.ports.store import Project, User
from trunkline.server.auth import hashed
from trunkline.server.keyfile import KeyFile, make_secret, read_secret

PREFIX = "glcbt-"  # GitLab's prefix of job tokens: its runner masks what begins with it


_ATTEMPT, MARK = struct.Struct(">QI8s"), 16  # what a token tells: job, attempt, something random; bytes of what proves it is ours
READ_ONLY = (("actions", "read"), ("contents", "read"))  # what a stranger's change may do


@record
class Bearer:
    """Which job a token belongs to."""

    job: int
    run: int
    project: str
    scopes: tuple[tuple[str, str], ...] | None = None


class JobTokens:
    """The tokens of the jobs that run now. `find` tells of a job's number the run and the job, for those of other servers."""

    def __init__(self, folder: str, find: Callable[[int], tuple[Run, JobRun] | None]) -> None:
        self.file = KeyFile(os.path.join(folder, "job_tokens.key"), read_secret, make_secret)
        self.find = find
        self.lock = threading.Lock()
        self.known: dict[str, Bearer] = {}

    def issue(self, run: Run, job: JobRun) -> str:
        """Make one for an attempt."""
        told = _ATTEMPT.pack(job.id, job.attempt, os.urandom(8))
        secret = PREFIX + urlsafe_b64encode(told + self._mark(told)).decode()
        with self.lock:
            self.known[hashed(secret)] = _bearer(run, job)
        return secret

    def _mark(self, told: bytes) -> bytes:
        return hmac.digest(self.file.key().raw_value, told, "sha256")[:MARK]

    def _of_another_server(self, secret: str) -> Bearer | None:
        """Return whose a token is that this server has not issued: of a job that runs still, with our mark."""
        try:
            given = urlsafe_b64decode(secret.removeprefix(PREFIX).encode())
        except ValueError:
            return None
        told, mark = given[:-MARK], given[-MARK:]
        if not secret.startswith(PREFIX) or len(told) != _ATTEMPT.size or not hmac.compare_digest(mark, self._mark(told)):
            return None
        number, attempt, _ = _ATTEMPT.unpack(told)
        found = self.find(number)
        if found is None or found[1].status is not Status.RUNNING or found[1].attempt != attempt:
            return None
        return _bearer(*found)

    def for_pulling(self, project: str) -> str:
        """Make one with which the server itself fetches images of a project; it belongs to no job, and ends with the server."""
        secret = token(PREFIX)
        with self.lock:
            self.known = {key: b for key, b in self.known.items() if (b.job, b.project) != (-1, project)}
            self.known[hashed(secret)] = Bearer(-1, 0, project, (("packages", "read"),))
        return secret

    def restore(self, secret_hash: str, run: Run, job: JobRun) -> None:
        """Let a token be good that was issued before a restart, or by another server."""
        with self.lock:
            self.known[secret_hash] = _bearer(run, job)

    def revoke(self, job: int) -> None:
        """Forget those of a job."""
        with self.lock:
            self.known = {key: bearer for key, bearer in self.known.items() if bearer.job != job}

    def bearer(self, secret: str) -> Bearer | None:
        """Return whose it is, if that runs still."""
        return self.known.get(hashed(secret)) or self._of_another_server(secret)

    def user(self, secret: str) -> User | None:
        """Return the user that a token stands for: nobody's account, with the few rights of a job."""
        found = self.bearer(secret)
        return User(0, f"job {found.job} of {found.project}", False, job=found.job, scopes=found.scopes) if found is not None else None


def _bearer(run: Run, job: JobRun) -> Bearer:
    scopes = job.job.workflow.permissions if job.job.workflow is not None else None
    return Bearer(job.id, run.id, run.project, scopes if run.event.trusted else READ_ONLY)


def _read(content: dict[str, Any]) -> Any:
    from joserfc.jwk import RSAKey

    return RSAKey.import_key(content)


def _make() -> Any:
    from joserfc.jwk import RSAKey

    return RSAKey.generate_key(2048, auto_kid=True)


class Issuer:
    """Signs id tokens in the name of this server."""

    def __init__(self, folder: str, url: str) -> None:
        self.url = url
        self.file = KeyFile(os.path.join(folder, "id_token.json"), _read, _make)

    def key(self) -> Any:
        """Return the signing key (joserfc's RSAKey)."""
        return self.file.key()

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document (OpenID Connect Discovery 1.0)."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/oauth/discovery/keys",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["sub", "aud", "exp", "iat", "nbf", "iss", "jti", "project_path", "ref", "ref_type", "sha", "environment"],
        }

    def keys(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517)."""
        return {"keys": [{**self.key().as_dict(private=False), "use": "sig", "alg": "RS256"}]}

    def sign(self, audience: tuple[str, ...], claims: Mapping[str, str], seconds: float, subject: str = "") -> str:
        """Return a token for these audiences, valid for so many seconds; without a `subject` it is GitLab's for a job."""
        from joserfc import jwt

        now = int(time.time())
        ref_type = "tag" if claims["ref_type"] == "tag" else "branch"
        body = {
            "iss": self.url,
            "sub": subject or f"project_path:{claims['project_path']}:ref_type:{ref_type}:ref:{claims['ref']}",
            "aud": audience[0] if len(audience) == 1 else list(audience),
            "iat": now,
            "nbf": now - 5,
            "exp": now + int(seconds),
            "jti": digest(claims["job_id"], str(time.time_ns())),
            **claims,
        }
        key = self.key()
        return jwt.encode({"alg": "RS256", "kid": key.kid, "typ": "JWT"}, body, key)


def claims_of(run: Run, job: JobRun, values: Mapping[str, str], project: Project | None) -> dict[str, str]:
    """Return what an id token says of a job. What others trust is the server's own knowledge: a pipeline can set any of its variables (`values`)."""
    event = run.event
    default_branch = project.default_branch if project else ""
    kind = "tag" if event.is_tag else "branch"
    found = {
        "namespace_path": run.project.rpartition("/")[0],
        "project_id": str(project.id if project else 0),
        "project_path": run.project,
        "user_login": event.user,
        "user_email": values.get("GITLAB_USER_EMAIL", ""),
        "pipeline_id": str(run.id),
        "pipeline_source": event.kind.value,
        "job_id": str(job.id),
        "ref": event.ref,
        "ref_type": kind,
        "ref_path": f"refs/{'tags' if event.is_tag else 'heads'}/{event.ref}",
        "ref_protected": str(event.is_protected(default_branch)).lower(),
        "runner_environment": "self-hosted",
        "sha": event.revision.sha,
        "project_visibility": "private",
        "ci_config_ref_uri": values.get("CI_CONFIG_REF_URI", ""),
        "ci_config_sha": event.revision.sha,
    }
    if job.job.environment is not None:
        found |= {"environment": values.get("CI_ENVIRONMENT_NAME", ""), "deployment_tier": values.get("CI_ENVIRONMENT_TIER", "")}
    return found
