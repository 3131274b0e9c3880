"""GitLab."""

import hmac
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from trunkline.adapters.forges.common import get, read, split, text
from trunkline.model.errors import Refused
from trunkline.model.events import Proposal
from trunkline.model.mirrors import Call, CommitStatus, Happened, Mirror, Standing

_ACTIONS = {"open": "opened", "reopen": "reopened", "update": "synchronize", "merge": "closed", "close": "closed"}
_STATES = {Standing.FAILURE: "failed", Standing.ERROR: "canceled"}


class GitlabForge:
    """Implements ports.forges.Forge. Its hooks carry the secret itself."""

    name = "gitlab"

    def place(self, url: str) -> tuple[str, str]:
        """The API lies below /api/v4 of the same host."""
        scheme, host, path = split(url)
        return f"{scheme}://{host}/api/v4", path

    def heard(self, headers: Mapping[str, str], body: bytes, secret: str) -> Happened:
        """Read a hook."""
        if not hmac.compare_digest(headers.get("x-gitlab-token", "").encode(), secret.encode()):
            raise Refused("the secret of the hook is wrong (X-Gitlab-Token)", "set the same secret token here and at GitLab")
        told, event = read(headers, body), headers.get("x-gitlab-event", "")
        user = text(told, "user_username") or text(told, "user", "username")
        if event in ("Push Hook", "Tag Push Hook"):
            ref = text(told, "ref")
            gone = not text(told, "after").strip("0")
            return Happened(
                "push",
                ref.removeprefix("refs/heads/").removeprefix("refs/tags/"),
                user,
                is_tag=ref.startswith("refs/tags/"),
                action="deleted" if gone else "",
            )
        if event == "Merge Request Hook":
            request = get(told, "object_attributes") or {}
            action = _ACTIONS.get(text(request, "action"), text(request, "action"))
            if text(request, "action") == "update" and not text(request, "oldrev"):
                action = "edited"  # its commits are the same
            return self._request(request, action, user, json.dumps(told))
        if event == "Release Hook":
            action = {"create": "published", "update": "edited", "delete": "deleted"}.get(text(told, "action"), "")
            return Happened(
                "release",
                text(told, "tag"),
                user,
                is_tag=True,
                action=action,
                payload=json.dumps(
                    {
                        "action": action,
                        "release": {"tag_name": text(told, "tag"), "name": text(told, "name"), "body": text(told, "description")},
                    }
                ),
            )
        return Happened("", because=f"nothing here waits for {event or 'this'}")

    @staticmethod
    def _request(told: dict[str, Any], action: str, user: str, payload: str) -> Happened:
        proposal = Proposal(
            number=int(get(told, "iid") or 0),
            title=text(told, "title"),
            target=text(told, "target_branch"),
            author=text(told, "author", "username") or user,
            description=text(told, "description"),
            source_sha=text(told, "last_commit", "id") or text(told, "sha"),
            is_draft=get(told, "draft") is True or get(told, "work_in_progress") is True,
        )
        is_fork = get(told, "source_project_id") != get(told, "target_project_id")
        return Happened("pull_request", text(told, "source_branch"), user or proposal.author, proposal, is_fork, action=action)

    def head(self, number: int) -> str:
        """refs/merge-requests/N/head."""
        return f"refs/merge-requests/{number}/head"

    def login(self, token: str) -> str:
        """Any name will do beside a token."""
        return f"oauth2:{token}"

    @staticmethod
    def _project(mirror: Mirror) -> str:
        return f"{mirror.api}/projects/{urllib.parse.quote(mirror.far, safe='')}"

    def status(self, mirror: Mirror, token: str, status: CommitStatus) -> Call:
        """POST /projects/ID/statuses/SHA."""
        state = _STATES.get(status.standing, status.standing.value)
        body = {"state": state, "name": status.context, "target_url": status.url, "description": status.description[:255]}
        return Call("POST", f"{self._project(mirror)}/statuses/{status.sha}", (("PRIVATE-TOKEN", token),), body)

    def proposals(self, mirror: Mirror, token: str) -> Call:
        """GET /projects/ID/merge_requests."""
        return Call(
            "GET", f"{self._project(mirror)}/merge_requests?state=opened&per_page=100", (("PRIVATE-TOKEN", token),) if token else ()
        )

    def proposed(self, answer: object) -> tuple[Happened, ...]:
        """Read the list of merge requests."""
        listed = answer if isinstance(answer, list) else ()
        return tuple(self._request(one, "synchronize", "", "") for one in listed if isinstance(one, dict))
