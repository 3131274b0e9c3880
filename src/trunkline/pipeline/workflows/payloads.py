"""What GitHub (and Gitea, which speaks alike) sends of an event -> an Event. Source: GitHub's documentation of webhook events and payloads."""

import json
from collections.abc import Mapping
from typing import Any

from trunkline.model.events import ZERO_SHA, Event, EventKind, Proposal, Revision

KINDS = {
    "push": EventKind.PUSH,
    "pull_request": EventKind.CHANGE_REQUEST,
    "pull_request_target": EventKind.CHANGE_REQUEST,
    "workflow_dispatch": EventKind.MANUAL,
    "schedule": EventKind.SCHEDULE,
    "repository_dispatch": EventKind.TRIGGER,
}


def name_of(payload: Mapping[str, Any]) -> str:
    """Return the event that a payload is of, by what is in it."""
    for key, name in (
        ("pull_request", "pull_request"),
        ("workflow_run", "workflow_run"),
        ("merge_group", "merge_group"),
        ("release", "release"),
        ("client_payload", "repository_dispatch"),
        ("inputs", "workflow_dispatch"),
        ("schedule", "schedule"),
        ("comment", "issue_comment"),
        ("issue", "issues"),
    ):
        if key in payload:
            return name
    return "push"


def event_of(name: str, payload: Mapping[str, Any], revision: Revision, ref: str, user: str = "") -> Event:
    """Return the event of a payload; `revision` and `ref` stand where it says nothing."""
    kind = KINDS.get(name, EventKind.API)
    full = str(payload.get("ref") or "")
    is_tag = full.startswith("refs/tags/")
    short = full.removeprefix("refs/tags/").removeprefix("refs/heads/") or ref
    sender = _dict(payload, "sender").get("login")
    event = {
        "kind": kind,
        "ref": short,
        "revision": revision,
        "is_tag": is_tag,
        "before": str(payload.get("before") or ZERO_SHA),
        "user": str(sender or user),
        "payload": json.dumps(payload),
        "name": name if name not in KINDS or name == "pull_request_target" else "",
    }
    if kind is EventKind.CHANGE_REQUEST:
        event |= _request(payload, ref)
    if name == "release":
        event |= {"ref": str(_dict(payload, "release").get("tag_name") or short), "is_tag": True}
    if name == "workflow_dispatch":
        given = _dict(payload, "inputs")
        event["variables"] = tuple((n, v if isinstance(v, str) else json.dumps(v)) for n, v in given.items())
    return Event(**event)  # type: ignore[arg-type]


def _dict(payload: Mapping[str, Any], *names: str) -> dict[str, Any]:
    at: Any = payload
    for name in names:
        at = at.get(name) if isinstance(at, dict) or hasattr(at, "get") else None
        if at is None:
            return {}
    return at if isinstance(at, dict) else {}


def _request(payload: Mapping[str, Any], ref: str) -> dict[str, Any]:
    told = _dict(payload, "pull_request")
    head, base = _dict(told, "head"), _dict(told, "base")
    proposal = Proposal(
        number=int(told.get("number") or payload.get("number") or 1),
        title=str(told.get("title") or ""),
        target=str(base.get("ref") or "main"),
        author=str(_dict(told, "user").get("login") or ""),
        description=str(told.get("body") or ""),
        source_sha=str(head.get("sha") or ""),
        target_sha=str(base.get("sha") or ""),
        is_draft=bool(told.get("draft")),
    )
    here, there = _dict(base, "repo").get("full_name"), _dict(head, "repo").get("full_name")
    return {"ref": str(head.get("ref") or ref), "proposal": proposal, "target": proposal.target, "trusted": not here or here == there}
