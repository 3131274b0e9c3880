"""GitHub, and Gitea and Forgejo, whose hooks and API have the same shapes."""

import json
from collections.abc import Mapping
from typing import Any

from trunkline.adapters.forges.common import check_digest, get, read, split, text
from trunkline.model.events import Proposal
from trunkline.model.mirrors import Call, CommitStatus, Happened, Mirror, Standing

PASSED_ON = ("release", "workflow_dispatch", "repository_dispatch", "issue_comment", "issues", "merge_group", "create", "delete", "label")


class GithubForge:
    """Implements ports.forges.Forge."""

    name = "github"

    def place(self, url: str) -> tuple[str, str]:
        """github.com has its API on a host of its own, GitHub Enterprise below /api/v3."""
        scheme, host, path = split(url)
        return ("https://api.github.com" if host == "github.com" else f"{scheme}://{host}/api/v3"), path

    def signature(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Return the signature of a hook and the header that holds it."""
        return headers.get("x-hub-signature-256", ""), "X-Hub-Signature-256"

    def event(self, headers: Mapping[str, str]) -> str:
        """Return the word for what a hook is about."""
        return headers.get("x-github-event", "")

    def heard(self, headers: Mapping[str, str], body: bytes, secret: str) -> Happened:
        """Read a hook."""
        check_digest(*_swapped(self.signature(headers), secret, body))
        told, event = read(headers, body), self.event(headers)
        user = text(told, "sender", "login")
        if event == "push":
            ref = text(told, "ref")
            gone = get(told, "deleted") is True
            return Happened(
                "push",
                ref.removeprefix("refs/heads/").removeprefix("refs/tags/"),
                user,
                is_tag=ref.startswith("refs/tags/"),
                action="deleted" if gone else "",
            )
        if event == "pull_request":
            return self._request(get(told, "pull_request") or {}, text(told, "action"), user, json.dumps(told))
        if event in PASSED_ON:
            tag = text(told, "release", "tag_name")
            ref = tag or text(told, "ref").removeprefix("refs/heads/").removeprefix("refs/tags/")
            return Happened(event, ref, user, is_tag=bool(tag), action=text(told, "action"), payload=json.dumps(told))
        return Happened("", because="the forge says hello" if event == "ping" else f"nothing here waits for {event or 'this'}")

    def _request(self, told: dict[str, Any], action: str, user: str, payload: str) -> Happened:
        proposal = Proposal(
            number=int(get(told, "number") or 0),
            title=text(told, "title"),
            target=text(told, "base", "ref"),
            author=text(told, "user", "login"),
            description=text(told, "body"),
            source_sha=text(told, "head", "sha"),
            is_draft=get(told, "draft") is True,
        )
        here, there = text(told, "base", "repo", "full_name"), text(told, "head", "repo", "full_name")
        if action == "synchronized":  # Gitea's word
            action = "synchronize"
        return Happened(
            "pull_request", text(told, "head", "ref"), user or proposal.author, proposal, here != there, action=action, payload=payload
        )

    def head(self, number: int) -> str:
        """refs/pull/N/head."""
        return f"refs/pull/{number}/head"

    def login(self, token: str) -> str:
        """Any name will do beside a token."""
        return f"x-access-token:{token}"

    def headers(self, token: str) -> tuple[tuple[str, str], ...]:
        """Return the headers of a request."""
        return (("Authorization", f"Bearer {token}"), ("Accept", "application/vnd.github+json"), ("X-GitHub-Api-Version", "2022-11-28"))

    def status(self, mirror: Mirror, token: str, status: CommitStatus) -> Call:
        """POST /repos/OWNER/NAME/statuses/SHA; a description has at most 140 characters."""
        state = "pending" if status.standing is Standing.RUNNING else status.standing.value
        body = {"state": state, "target_url": status.url, "description": status.description[:140], "context": status.context}
        return Call("POST", f"{mirror.api}/repos/{mirror.far}/statuses/{status.sha}", self.headers(token), body)

    def proposals(self, mirror: Mirror, token: str) -> Call:
        """GET /repos/OWNER/NAME/pulls."""
        return Call("GET", f"{mirror.api}/repos/{mirror.far}/pulls?state=open&per_page=100", self.headers(token) if token else ())

    def proposed(self, answer: object) -> tuple[Happened, ...]:
        """Read the list of pull requests."""
        return tuple(
            self._request(one, "synchronize", "", json.dumps({"action": "synchronize", "number": one.get("number"), "pull_request": one}))
            for one in (answer if isinstance(answer, list) else ())
            if isinstance(one, dict)
        )


def _swapped(signed: tuple[str, str], secret: str, body: bytes) -> tuple[str, str, bytes, str]:
    return signed[0], secret, body, signed[1]


class GiteaForge(GithubForge):
    """Gitea and Forgejo."""

    name = "gitea"

    def place(self, url: str) -> tuple[str, str]:
        """The API lies below /api/v1 of the same host."""
        scheme, host, path = split(url)
        return f"{scheme}://{host}/api/v1", path

    def signature(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """X-Gitea-Signature, and X-Forgejo-Signature beside it."""
        return headers.get("x-gitea-signature") or headers.get("x-forgejo-signature", ""), "X-Gitea-Signature"

    def event(self, headers: Mapping[str, str]) -> str:
        """Reviews and comments on pull requests have words of their own; what a pull request itself is about is one."""
        said = headers.get("x-gitea-event") or headers.get("x-forgejo-event", "")
        return "pull_request" if said in ("pull_request_sync", "pull_request") else said

    def headers(self, token: str) -> tuple[tuple[str, str], ...]:
        """Return the headers of a request."""
        return (("Authorization", f"token {token}"),)

    def proposals(self, mirror: Mirror, token: str) -> Call:
        """GET /repos/OWNER/NAME/pulls."""
        return Call("GET", f"{mirror.api}/repos/{mirror.far}/pulls?state=open&limit=50", self.headers(token) if token else ())
