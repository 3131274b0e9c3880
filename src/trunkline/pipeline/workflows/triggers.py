"""`on`: whether an event starts a workflow, and why. Source: GitHub's documentation of events that trigger workflows and of its filters."""

import json

from trunkline.model import filters
from trunkline.model.events import Event, EventKind
from trunkline.model.workflows import Filters, StartedBy

# The words for an event, the first that a workflow names counts.
NAMES: dict[EventKind, tuple[str, ...]] = {
    EventKind.PUSH: ("push",),
    EventKind.MANUAL: ("workflow_dispatch",),
    EventKind.UPSTREAM: ("workflow_dispatch", "repository_dispatch"),
    EventKind.PARENT: ("workflow_call",),
    EventKind.SCHEDULE: ("schedule",),
    EventKind.API: ("workflow_dispatch", "repository_dispatch"),
    EventKind.TRIGGER: ("repository_dispatch", "workflow_dispatch"),
    EventKind.CHANGE_REQUEST: ("pull_request",),
}
# The activities that start a workflow that names none.
USUAL = {
    "pull_request": ("opened", "synchronize", "reopened"),
    "pull_request_target": ("opened", "synchronize", "reopened"),
}
ON_REQUESTS = ("pull_request", "pull_request_target", "pull_request_review", "pull_request_review_comment")


def names_of(event: Event) -> tuple[str, ...]:
    """Return what GitHub may call an event."""
    if event.name == "pull_request":
        return NAMES[EventKind.CHANGE_REQUEST]
    return (event.name,) if event.name else NAMES[event.kind]


def judge(started: tuple[StartedBy, ...], event: Event) -> tuple[StartedBy | None, str]:
    """Return what of `on` starts a workflow, or None; and why."""
    names = names_of(event)
    because = f"on does not name {' or '.join(names)}"
    for name in names:
        for one in started:
            if one.event == name:
                refused = _refused(one, event)
                if not refused:
                    return one, f"on: {name}"
                because = refused
    return None, because


def activity_of(event: Event) -> str:
    """Return what happened to what an event is about (`opened`), "" where nobody said."""
    said = payload_of(event).get("action")
    return said if isinstance(said, str) else ""


def payload_of(event: Event) -> dict[str, object]:
    """Return what the forge sent, as it sent it; empty where there is nothing."""
    try:
        told = json.loads(event.payload) if event.payload else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _refused(one: StartedBy, event: Event) -> str:
    """Return why an event does not start a workflow whose `on` names it, or ""."""
    where, activity = f"on.{one.event}", activity_of(event)
    types = one.types or USUAL.get(one.event)
    if one.event == "repository_dispatch":
        activity = str(payload_of(event).get("event_type") or activity)
    if types is not None and activity and activity not in types:
        return f"{where}.types does not name {activity}"
    if one.event == "workflow_run":
        run = payload_of(event).get("workflow_run")
        about = run if isinstance(run, dict) else {}
        if one.workflows and not filters.takes(one.workflows, str(about.get("name", ""))):
            return f"{where}.workflows does not name {about.get('name', '')}"
        return _by_branch(one.filters, str(about.get("head_branch", "")), where)
    if one.event == "push":
        return _by_ref(one.filters, event, where) or ("" if event.is_tag else _by_paths(one.filters, event, where))
    if one.event in ON_REQUESTS or one.event == "merge_group":
        target = event.proposal.target if event.proposal is not None else event.target
        return (_by_branch(one.filters, target, where) if target else "") or _by_paths(one.filters, event, where)
    return ""


def _by_ref(chosen: Filters, event: Event, where: str) -> str:
    on_branches = chosen.branches is not None or chosen.branches_ignore is not None
    on_tags = chosen.tags is not None or chosen.tags_ignore is not None
    if event.is_tag:
        if on_branches and not on_tags:
            return f"{where} names only branches, {event.ref} is a tag"
        if chosen.tags is not None and not filters.takes(chosen.tags, event.ref):
            return f"{where}.tags does not take {event.ref}"
        if chosen.tags_ignore is not None and filters.ignores_all(chosen.tags_ignore, (event.ref,)):
            return f"{where}.tags-ignore leaves {event.ref} out"
        return ""
    if on_tags and not on_branches:
        return f"{where} names only tags, {event.ref} is a branch"
    return _by_branch(chosen, event.ref, where)


def _by_branch(chosen: Filters, branch: str, where: str) -> str:
    if chosen.branches is not None and not filters.takes(chosen.branches, branch):
        return f"{where}.branches does not take {branch}"
    if chosen.branches_ignore is not None and filters.ignores_all(chosen.branches_ignore, (branch,)):
        return f"{where}.branches-ignore leaves {branch} out"
    return ""


def _by_paths(chosen: Filters, event: Event, where: str) -> str:
    """Where nothing can be compared (a new branch) everything counts as changed."""
    if event.changed is None:
        return ""
    if chosen.paths is not None and not filters.takes_any(chosen.paths, event.changed):
        return f"nothing changed that {where}.paths takes"
    if chosen.paths_ignore is not None and filters.ignores_all(chosen.paths_ignore, event.changed):
        return f"{where}.paths-ignore leaves out all that changed"
    return ""


def asks_for_changes(started: tuple[StartedBy, ...]) -> bool:
    """Say whether a workflow depends on which files have changed."""
    return any(one.filters.paths is not None or one.filters.paths_ignore is not None for one in started)
