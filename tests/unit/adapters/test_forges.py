"""Hooks and statuses in the shapes that the forges document."""

import hashlib
import hmac
import json
import urllib.parse
from typing import Any

import pytest

from trunkline.model.errors import ConfigError, Refused
from trunkline.model.mirrors import CommitStatus, Happened, Mirror, Standing
from trunkline.wiring.builtin import FORGES, forge

SECRET = "hook-secret"
SHA = "1234567890abcdef1234567890abcdef12345678"


def signed(name: str, event: str, body: dict[str, Any], secret: str = SECRET) -> tuple[dict[str, str], bytes]:
    """Sign a hook as that forge does."""
    raw = json.dumps(body).encode()
    digest = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {
        "github": {"x-github-event": event, "x-hub-signature-256": f"sha256={digest}"},
        "gitea": {"x-gitea-event": event, "x-gitea-signature": digest},
        "gitlab": {"x-gitlab-event": event, "x-gitlab-token": secret},
        "bitbucket": {"x-event-key": event, "x-hub-signature": f"sha256={digest}"},
        "bitbucket-server": {"x-event-key": event, "x-hub-signature": f"sha256={digest}"},
    }[name]
    return {**headers, "content-type": "application/json"}, raw


def heard(name: str, event: str, body: dict[str, Any]) -> Happened:
    return forge(name).heard(*signed(name, event, body), SECRET)


def github_request(fork: bool = False, **more: Any) -> dict[str, Any]:
    own = {"id": 1, "full_name": "team/app", "clone_url": "https://github.com/team/app.git"}
    head = {"id": 2, "full_name": "stranger/app"} if fork else own
    request = {
        "number": 7, "state": "open", "title": "Better", "body": "Much", "draft": False, "user": {"login": "ann"},
        "head": {"label": "team:topic", "ref": "topic", "sha": SHA, "repo": head}, "base": {"ref": "main", "sha": "0" * 40, "repo": own},
    }  # fmt: skip
    return {"action": "synchronize", "number": 7, "pull_request": request, "repository": own, "sender": {"login": "ann"}, **more}


Rows = list[tuple[str, str, dict[str, Any]]]
PUSHES: Rows = [
    ("github", "push", {"ref": "refs/heads/main", "before": "0" * 40, "after": SHA, "deleted": False, "sender": {"login": "ann"}}),
    ("gitea", "push", {"ref": "refs/heads/main", "before": "0" * 40, "after": SHA, "sender": {"login": "ann"}}),
    ("gitlab", "Push Hook", {"object_kind": "push", "ref": "refs/heads/main", "after": SHA, "user_username": "ann"}),
    (
        "bitbucket",
        "repo:push",
        {"actor": {"nickname": "ann"}, "push": {"changes": [{"new": {"type": "branch", "name": "main"}, "old": None}]}},
    ),
    (
        "bitbucket-server",
        "repo:refs_changed",
        {"actor": {"name": "ann"}, "changes": [{"ref": {"displayId": "main", "type": "BRANCH"}, "type": "UPDATE"}]},
    ),
]
TAGS: Rows = [
    ("github", "push", {"ref": "refs/tags/v1", "sender": {"login": "ann"}}),
    ("gitlab", "Tag Push Hook", {"ref": "refs/tags/v1", "after": SHA, "user_username": "ann"}),
    ("bitbucket", "repo:push", {"push": {"changes": [{"new": {"type": "tag", "name": "v1"}}]}}),
    ("bitbucket-server", "repo:refs_changed", {"changes": [{"ref": {"displayId": "v1", "type": "TAG"}, "type": "ADD"}]}),
]
GITLAB: dict[str, Any] = {"iid": 7, "title": "Better", "source_branch": "topic", "target_branch": "main", "source_project_id": 1, "target_project_id": 1, "action": "open",
          "last_commit": {"id": SHA}}  # fmt: skip
CLOUD: dict[str, Any] = {"id": 7, "title": "Better", "source": {"branch": {"name": "topic"}, "commit": {"hash": SHA[:12]}, "repository": {"full_name": "team/app"}},
         "destination": {"branch": {"name": "main"}, "repository": {"full_name": "team/app"}}, "author": {"nickname": "ann"}}  # fmt: skip
OWN: dict[str, Any] = {"id": 7, "title": "Better", "fromRef": {"displayId": "topic", "latestCommit": SHA, "repository": {"id": 1}}, "toRef": {"displayId": "main", "repository": {"id": 1}},
       "author": {"user": {"name": "ann"}}}  # fmt: skip
REQUESTS: Rows = [
    ("github", "pull_request", github_request()),
    ("gitea", "pull_request", github_request(action="synchronized")),
    ("gitlab", "Merge Request Hook", {"user": {"username": "ann"}, "object_attributes": GITLAB}),
    ("bitbucket", "pullrequest:created", {"actor": {"nickname": "ann"}, "pullrequest": CLOUD}),
    ("bitbucket-server", "pr:opened", {"actor": {"name": "ann"}, "pullRequest": OWN}),
]


@pytest.mark.parametrize(("name", "event", "body"), PUSHES)
def test_pushes(name: str, event: str, body: dict[str, Any]) -> None:
    told = heard(name, event, body)
    assert (told.name, told.ref, told.user, told.is_tag) == ("push", "main", "ann", False)


@pytest.mark.parametrize(("name", "event", "body"), TAGS)
def test_tags(name: str, event: str, body: dict[str, Any]) -> None:
    told = heard(name, event, body)
    assert (told.name, told.ref, told.is_tag) == ("push", "v1", True)


@pytest.mark.parametrize(("name", "event", "body"), REQUESTS)
def test_change_requests(name: str, event: str, body: dict[str, Any]) -> None:
    told = heard(name, event, body)
    assert told.proposal is not None
    p = told.proposal
    assert (told.name, told.ref, told.is_fork, told.user) == ("pull_request", "topic", False, "ann")
    assert (p.number, p.title, p.target) == (7, "Better", "main")
    assert SHA.startswith(p.source_sha)
    assert told.action in ("opened", "synchronize")


@pytest.mark.parametrize(
    ("name", "event", "body"),
    [
        ("github", "pull_request", github_request(fork=True)),
        ("gitea", "pull_request", github_request(fork=True)),
        ("gitlab", "Merge Request Hook", {"object_attributes": {**GITLAB, "source_project_id": 2}}),
        (
            "bitbucket",
            "pullrequest:created",
            {"pullrequest": {**CLOUD, "source": {**CLOUD["source"], "repository": {"full_name": "stranger/app"}}}},
        ),
        ("bitbucket-server", "pr:opened", {"pullRequest": {**OWN, "fromRef": {**OWN["fromRef"], "repository": {"id": 2}}}}),
    ],
)
def test_forks(name: str, event: str, body: dict[str, Any]) -> None:
    assert heard(name, event, body).is_fork


def test_a_source_that_is_gone_counts_as_a_fork() -> None:
    body = github_request()
    body["pull_request"]["head"]["repo"] = None
    assert heard("github", "pull_request", body).is_fork


@pytest.mark.parametrize("name", FORGES)
def test_a_wrong_signature_is_refused(name: str) -> None:
    event, body = next((e, b) for n, e, b in PUSHES if n == name)
    headers, raw = signed(name, event, body, "another secret")
    with pytest.raises(Refused, match="wrong"):
        forge(name).heard(headers, raw, SECRET)
    with pytest.raises(Refused):
        forge(name).heard({k: v for k, v in headers.items() if "event" in k}, raw, SECRET)
    if name != "gitlab":  # GitLab's secret does not depend on the body
        headers, raw = signed(name, event, body)
        with pytest.raises(Refused):
            forge(name).heard(headers, raw + b" ", SECRET)


def test_a_hook_as_a_form_is_read_and_nonsense_refused() -> None:
    raw = urllib.parse.urlencode({"payload": json.dumps(PUSHES[0][2])}).encode()
    digest = hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"x-github-event": "push", "x-hub-signature-256": f"sha256={digest}", "content-type": "application/x-www-form-urlencoded"}
    assert forge("github").heard(headers, raw, SECRET).ref == "main"
    digest = hmac.new(SECRET.encode(), b"[1]", hashlib.sha256).hexdigest()
    with pytest.raises(ConfigError, match="no JSON object"):
        forge("github").heard({"x-github-event": "push", "x-hub-signature-256": digest}, b"[1]", SECRET)


def test_what_nothing_waits_for_says_so() -> None:
    assert heard("github", "ping", {"zen": "x"}).because == "the forge says hello"
    assert "star" in heard("github", "star", {}).because
    assert heard("gitlab", "Merge Request Hook", {"object_attributes": {**GITLAB, "action": "update"}}).action == "edited"
    assert (
        heard("gitlab", "Merge Request Hook", {"object_attributes": {**GITLAB, "action": "update", "oldrev": "a"}}).action == "synchronize"
    )
    release = heard("github", "release", {"action": "published", "release": {"tag_name": "v2"}, "sender": {"login": "ann"}})
    assert (release.name, release.ref, release.is_tag, release.action) == ("release", "v2", True, "published")


STATUS = CommitStatus(SHA, Standing.FAILURE, "trunkline/CI (push)", "test: exit code 1", "https://ci.example/team/app/runs/1")


@pytest.mark.parametrize(
    ("name", "git_url", "url", "header", "body"),
    [
        ("github", "https://github.com/team/app.git", f"https://api.github.com/repos/team/app/statuses/{SHA}", ("Authorization", "Bearer tok"),
         {"state": "failure", "target_url": STATUS.url, "description": STATUS.description, "context": STATUS.context}),
        ("github", "git@git.firm.example:team/app.git", f"https://git.firm.example/api/v3/repos/team/app/statuses/{SHA}", ("Authorization", "Bearer tok"), None),
        ("gitea", "http://gitea.example:3000/team/app.git", f"http://gitea.example:3000/api/v1/repos/team/app/statuses/{SHA}", ("Authorization", "token tok"), None),
        ("gitlab", "https://gitlab.com/group/team/app.git", f"https://gitlab.com/api/v4/projects/group%2Fteam%2Fapp/statuses/{SHA}", ("PRIVATE-TOKEN", "tok"),
         {"state": "failed", "name": STATUS.context, "target_url": STATUS.url, "description": STATUS.description}),
        ("bitbucket", "https://bitbucket.org/team/app.git", f"https://api.bitbucket.org/2.0/repositories/team/app/commit/{SHA}/statuses/build", ("Authorization", "Bearer tok"),
         {"key": STATUS.context, "state": "FAILED", "name": STATUS.context, "url": STATUS.url, "description": STATUS.description}),
        ("bitbucket-server", "https://bb.example/scm/KEY/app.git", f"https://bb.example/rest/build-status/1.0/commits/{SHA}", ("Authorization", "Bearer tok"), None),
    ],
)  # fmt: skip
def test_statuses(name: str, git_url: str, url: str, header: tuple[str, str], body: dict[str, str] | None) -> None:
    api, far = forge(name).place(git_url)
    call = forge(name).status(Mirror(1, "team/app", name, git_url, api, far), "tok", STATUS)
    assert (call.method, call.url) == ("POST", url)
    assert header in call.headers
    assert body is None or call.body == body


def test_open_change_requests_are_read_as_hooks_are() -> None:
    pull = github_request()["pull_request"]
    for name, answer in (
        ("github", [pull]),
        ("gitlab", [{**GITLAB, "sha": SHA, "last_commit": None}]),
        ("bitbucket", {"values": [CLOUD]}),
        ("bitbucket-server", {"values": [OWN]}),
    ):
        (told,) = forge(name).proposed(answer)
        assert told.proposal is not None
        assert (told.proposal.number, told.ref, told.action) == (7, "topic", "synchronize")
        assert SHA.startswith(told.proposal.source_sha)
    assert forge("github").proposed({"message": "no"}) == ()
