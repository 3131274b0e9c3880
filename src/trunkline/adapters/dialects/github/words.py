"""The words of a workflow: events with their activity types and filters, keys, permissions, and which contexts may be named where.

Source: GitHub's documentation of workflow syntax, of events that trigger workflows, and of context availability.
"""

_STATUS = ("always", "cancelled", "failure", "success")

TOP = ("name", "run-name", "description", "on", "permissions", "env", "defaults", "concurrency", "jobs")
JOB = (
    "name",
    "needs",
    "if",
    "permissions",
    "runs-on",
    "environment",
    "concurrency",
    "outputs",
    "env",
    "defaults",
    "steps",
    "timeout-minutes",
    "cancel-timeout-minutes",
    "strategy",
    "continue-on-error",
    "container",
    "services",
    "snapshot",
)
CALLING_JOB = ("name", "needs", "if", "permissions", "uses", "with", "secrets", "strategy", "concurrency")
STEP = (
    "id",
    "if",
    "name",
    "uses",
    "run",
    "working-directory",
    "shell",
    "with",
    "env",
    "continue-on-error",
    "timeout-minutes",
    "background",
    "wait",
    "wait-all",
    "cancel",
    "parallel",
)
CONTAINER = ("image", "credentials", "env", "ports", "volumes", "options")
SERVICE = (*CONTAINER, "entrypoint", "command")
SCOPES = (
    "actions",
    "artifact-metadata",
    "attestations",
    "checks",
    "contents",
    "copilot-requests",
    "deployments",
    "discussions",
    "id-token",
    "issues",
    "models",
    "packages",
    "pages",
    "pull-requests",
    "repository-projects",
    "security-events",
    "statuses",
    "vulnerability-alerts",
)
INPUT_TYPES = ("string", "boolean", "number", "choice", "environment")

BRANCHES, TAGS, PATHS = ("branches", "branches-ignore"), ("tags", "tags-ignore"), ("paths", "paths-ignore")
# event -> (activity types or None where it has none, filters)
EVENTS: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...]]] = {
    "branch_protection_rule": (("created", "edited", "deleted"), ()),
    "check_run": (("created", "rerequested", "completed", "requested_action"), ()),
    "check_suite": (("completed", "requested", "rerequested"), ()),
    "create": (None, ()),
    "delete": (None, ()),
    "deployment": (None, ()),
    "deployment_status": (None, ()),
    "discussion": (
        (
            "created", "edited", "deleted", "transferred", "pinned", "unpinned", "labeled", "unlabeled", "locked", "unlocked", "category_changed",
            "answered", "unanswered",
        ),
        (),
    ),
    "discussion_comment": (("created", "edited", "deleted"), ()),
    "fork": (None, ()),
    "gollum": (None, ()),
    "image_version": (("ready", "failed", "created", "deleted"), ("names", "versions")),
    "issue_comment": (("created", "edited", "deleted"), ()),
    "issues": (
        (
            "opened", "edited", "deleted", "transferred", "pinned", "unpinned", "closed", "reopened", "assigned", "unassigned", "labeled", "unlabeled",
            "locked", "unlocked", "milestoned", "demilestoned", "typed", "untyped", "field_added", "field_removed",
        ),
        (),
    ),
    "label": (("created", "edited", "deleted"), ()),
    "merge_group": (("checks_requested", "destroyed"), BRANCHES),
    "milestone": (("created", "closed", "opened", "edited", "deleted"), ()),
    "page_build": (None, ()),
    "project": (("created", "updated", "closed", "reopened", "edited", "deleted"), ()),
    "project_card": (("created", "moved", "converted", "edited", "deleted"), ()),
    "project_column": (("created", "updated", "moved", "deleted"), ()),
    "public": (None, ()),
    "pull_request": (
        (
            "assigned", "unassigned", "labeled", "unlabeled", "opened", "edited", "closed", "reopened", "synchronize", "converted_to_draft", "locked",
            "unlocked", "enqueued", "dequeued", "milestoned", "demilestoned", "ready_for_review", "review_requested", "review_request_removed",
            "auto_merge_enabled", "auto_merge_disabled", "stacked",
        ),
        (*BRANCHES, *PATHS),
    ),
    "pull_request_comment": (("created", "edited", "deleted"), ()),
    "pull_request_review": (("submitted", "edited", "dismissed"), ()),
    "pull_request_review_comment": (("created", "edited", "deleted"), ()),
    "pull_request_target": (
        (
            "assigned", "unassigned", "labeled", "unlabeled", "opened", "edited", "closed", "reopened", "synchronize", "converted_to_draft", "locked",
            "unlocked", "enqueued", "dequeued", "milestoned", "demilestoned", "ready_for_review", "review_requested", "review_request_removed",
            "auto_merge_enabled", "auto_merge_disabled", "stacked",
        ),
        (*BRANCHES, *PATHS),
    ),
    "push": (None, (*BRANCHES, *TAGS, *PATHS)),
    "registry_package": (("published", "updated"), ()),
    "release": (("published", "unpublished", "created", "edited", "deleted", "prereleased", "released"), ()),
    "repository_dispatch": ((), ()),  # types are chosen by whoever sends it
    "schedule": (None, ()),
    "status": (None, ()),
    "watch": (("started",), ()),
    "workflow_call": (None, ("inputs", "outputs", "secrets")),
    "workflow_dispatch": (None, ("inputs",)),
    "workflow_run": (("completed", "requested", "in_progress"), ("workflows", *BRANCHES)),
}  # fmt: skip

# What anybody can write who opens an issue or a pull request: put into a script it becomes part of the script.
# Source: GitHub's documentation of security hardening (understanding the risk of script injections).
UNTRUSTED = (
    r"github\.head_ref",
    r"github\.event\.(issue|pull_request|discussion)\.(title|body)",
    r"github\.event\.(comment|review|review_comment)\.body",
    r"github\.event\.pages\.(\*|\d+)\.page_name",
    r"github\.event\.commits\.(\*|\d+)\.(message|author\.(email|name))",
    r"github\.event\.head_commit\.(message|author\.(email|name)|committer\.(email|name))",
    r"github\.event\.pull_request\.head\.(ref|label|repo\.default_branch)",
    r"github\.event\.workflow_run\.(head_branch|display_title|head_commit\.(message|author\.(email|name)))",
)

_JOB = ("github", "needs", "strategy", "matrix", "vars", "inputs")
_STEP = ("github", "needs", "strategy", "matrix", "job", "runner", "env", "vars", "secrets", "steps", "inputs")
# where -> (contexts, functions beside those that are everywhere)
AVAILABLE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "run-name": (("github", "inputs", "vars"), ()),
    "concurrency": (("github", "inputs", "vars"), ()),
    "env": (("github", "secrets", "inputs", "vars"), ()),
    "call.default": (("github", "inputs", "vars"), ()),
    "call.output": (("github", "jobs", "vars", "inputs"), ()),
    "job": (_JOB, ()),
    "job.if": (("github", "needs", "vars", "inputs"), _STATUS),
    "job.env": ((*_JOB, "secrets"), ()),
    "job.strategy": (("github", "needs", "vars", "inputs"), ()),
    "job.defaults": ((*_JOB, "env"), ()),
    "job.outputs": (_STEP, ()),
    "job.environment.url": ((*_JOB, "job", "runner", "env", "steps"), ()),
    "job.secrets": ((*_JOB, "secrets"), ()),
    "container.credentials": ((*_JOB, "env", "secrets"), ()),
    "container.env": ((*_JOB, "job", "runner", "env", "secrets"), ()),
    "step": (_STEP, ("hashfiles",)),
    "action.default": (("github", "env", "runner", "strategy", "matrix", "job"), ()),
    "action.step": (("github", "inputs", "strategy", "matrix", "job", "runner", "env", "steps"), ("hashfiles",)),
    "action.if": (("github", "inputs", "strategy", "matrix", "job", "runner", "env", "steps"), (*_STATUS, "hashfiles")),
    "step.if": (tuple(c for c in _STEP if c != "secrets"), (*_STATUS, "hashfiles")),
}
