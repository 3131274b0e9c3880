"""Bitbucket: the cloud, and the server (Data Center)."""

from collections.abc import Mapping
from typing import Any

from trunkline.adapters.forges.common import check_digest, get, read, split, text
from trunkline.kit.ids import digest
from trunkline.model.errors import ConfigError
from trunkline.model.events import Proposal
from trunkline.model.mirrors import Call, CommitStatus, Happened, Mirror, Standing

_STATES = {
    Standing.PENDING: "INPROGRESS",
    Standing.RUNNING: "INPROGRESS",
    Standing.SUCCESS: "SUCCESSFUL",
    Standing.FAILURE: "FAILED",
    Standing.ERROR: "STOPPED",
}
_CLOUD = {
    "pullrequest:created": "opened",
    "pullrequest:updated": "synchronize",
    "pullrequest:fulfilled": "closed",
    "pullrequest:rejected": "closed",
}
_SERVER = {
    "pr:opened": "opened",
    "pr:from_ref_updated": "synchronize",
    "pr:modified": "edited",
    "pr:merged": "closed",
    "pr:declined": "closed",
}


def _basic(token: str) -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {token}"),) if token else ()


def _status(status: CommitStatus, states: Mapping[Standing, str]) -> dict[str, str]:
    key = status.context if len(status.context) <= 40 else digest(status.context)[:40]
    return {
        "key": key,
        "state": states[status.standing],
        "name": status.context[:255],
        "url": status.url,
        "description": status.description[:255],
    }


class BitbucketForge:
    """Implements ports.forges.Forge for bitbucket.org."""

    name = "bitbucket"

    def place(self, url: str) -> tuple[str, str]:
        """The API has a host of its own."""
        scheme, host, path = split(url)
        return ("https://api.bitbucket.org/2.0" if host == "bitbucket.org" else f"{scheme}://{host}/2.0"), path

    def heard(self, headers: Mapping[str, str], body: bytes, secret: str) -> Happened:
        """Read a hook."""
        check_digest(headers.get("x-hub-signature", ""), secret, body, "X-Hub-Signature")
        told, event = read(headers, body), headers.get("x-event-key", "")
        user = text(told, "actor", "nickname") or text(told, "actor", "display_name")
        if event == "repo:push":
            changes = get(told, "push", "changes") or [{}]
            new = get(changes[0], "new") or get(changes[0], "old") or {}
            return Happened(
                "push", text(new, "name"), user, is_tag=text(new, "type") == "tag", action="deleted" if not get(changes[0], "new") else ""
            )
        if event in _CLOUD:
            return self._request(get(told, "pullrequest") or {}, _CLOUD[event], user)
        return Happened("", because=f"nothing here waits for {event or 'this'}")

    @staticmethod
    def _request(told: dict[str, Any], action: str, user: str) -> Happened:
        here, there = text(told, "destination", "repository", "full_name"), text(told, "source", "repository", "full_name")
        proposal = Proposal(
            number=int(get(told, "id") or 0),
            title=text(told, "title"),
            target=text(told, "destination", "branch", "name"),
            author=text(told, "author", "nickname"),
            description=text(told, "description") or text(told, "summary", "raw"),
            source_sha=text(told, "source", "commit", "hash"),
            is_draft=get(told, "draft") is True,
        )
        fork = there if there != here else ""
        return Happened(
            "pull_request",
            text(told, "source", "branch", "name"),
            user or proposal.author,
            proposal,
            bool(fork),
            action=action,
            fetch_from=fork,
        )

    def head(self, number: int) -> str:
        """The cloud keeps none: the branch is fetched where it lies."""
        return ""

    def login(self, token: str) -> str:
        """An access token of a repository."""
        return f"x-token-auth:{token}"

    def status(self, mirror: Mirror, token: str, status: CommitStatus) -> Call:
        """POST /repositories/WORKSPACE/NAME/commit/SHA/statuses/build."""
        return Call(
            "POST", f"{mirror.api}/repositories/{mirror.far}/commit/{status.sha}/statuses/build", _basic(token), _status(status, _STATES)
        )

    def proposals(self, mirror: Mirror, token: str) -> Call:
        """GET /repositories/WORKSPACE/NAME/pullrequests."""
        return Call("GET", f"{mirror.api}/repositories/{mirror.far}/pullrequests?state=OPEN&pagelen=50", _basic(token))

    def proposed(self, answer: object) -> tuple[Happened, ...]:
        """Read the page of pull requests."""
        listed = get(answer, "values")
        return tuple(self._request(one, "synchronize", "") for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict))


class BitbucketServerForge:
    """Implements ports.forges.Forge for Bitbucket Server and Data Center."""

    name = "bitbucket-server"

    def place(self, url: str) -> tuple[str, str]:
        """https://HOST/scm/KEY/NAME.git is KEY/NAME of its API; of ssh://HOST/KEY/NAME.git the same."""
        scheme, host, path = split(url)
        below, found, rest = path.rpartition("scm/")
        far = rest if found else path
        if far.count("/") != 1:
            raise ConfigError(f"{url!r} names no project and repository", "https://HOST/scm/KEY/NAME.git")
        prefix = f"/{below.strip('/')}" if below.strip("/") else ""
        return f"{scheme}://{host}{prefix}/rest", far

    def heard(self, headers: Mapping[str, str], body: bytes, secret: str) -> Happened:
        """Read a hook."""
        event = headers.get("x-event-key", "")
        if event == "diagnostics:ping":
            return Happened("", because="the forge says hello")
        check_digest(headers.get("x-hub-signature", ""), secret, body, "X-Hub-Signature")
        told = read(headers, body)
        user = text(told, "actor", "name")
        if event == "repo:refs_changed":
            change = (get(told, "changes") or [{}])[0]
            return Happened(
                "push",
                text(change, "ref", "displayId"),
                user,
                is_tag=text(change, "ref", "type") == "TAG",
                action="deleted" if text(change, "type") == "DELETE" else "",
            )
        if event in _SERVER:
            return self._request(get(told, "pullRequest") or {}, _SERVER[event], user)
        return Happened("", because=f"nothing here waits for {event or 'this'}")

    @staticmethod
    def _request(told: dict[str, Any], action: str, user: str) -> Happened:
        proposal = Proposal(
            number=int(get(told, "id") or 0),
            title=text(told, "title"),
            target=text(told, "toRef", "displayId"),
            author=text(told, "author", "user", "name"),
            description=text(told, "description"),
            source_sha=text(told, "fromRef", "latestCommit"),
            is_draft=get(told, "draft") is True,
        )
        is_fork = get(told, "fromRef", "repository", "id") != get(told, "toRef", "repository", "id")
        return Happened("pull_request", text(told, "fromRef", "displayId"), user or proposal.author, proposal, is_fork, action=action)

    def head(self, number: int) -> str:
        """refs/pull-requests/N/from."""
        return f"refs/pull-requests/{number}/from"

    def login(self, token: str) -> str:
        """An HTTP access token."""
        return f"x-token-auth:{token}"

    def status(self, mirror: Mirror, token: str, status: CommitStatus) -> Call:
        """POST /rest/build-status/1.0/commits/SHA."""
        states = {**_STATES, Standing.ERROR: "FAILED"}
        return Call("POST", f"{mirror.api}/build-status/1.0/commits/{status.sha}", _basic(token), _status(status, states))

    def proposals(self, mirror: Mirror, token: str) -> Call:
        """GET /rest/api/1.0/projects/KEY/repos/NAME/pull-requests."""
        key, _, name = mirror.far.partition("/")
        return Call("GET", f"{mirror.api}/api/1.0/projects/{key}/repos/{name}/pull-requests?state=OPEN&limit=100", _basic(token))

    def proposed(self, answer: object) -> tuple[Happened, ...]:
        """Read the page of pull requests."""
        listed = get(answer, "values")
        return tuple(self._request(one, "synchronize", "") for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict))
