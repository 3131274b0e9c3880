"""The words of `.gitlab-ci.yml`: which are known where, and which of them Trunkline can't act on yet.

Source: GitLab's CI/CD YAML reference (version 18). The tables drive validation, hints and the generated compatibility page.
"""

GLOBAL = frozenset(
    [
        "default",
        "include",
        "stages",
        "variables",
        "workflow",
        "image",
        "services",
        "before_script",
        "after_script",
        "cache",
        "spec",
    ]
)

JOB = frozenset(
    [
        "after_script",
        "allow_failure",
        "artifacts",
        "before_script",
        "cache",
        "coverage",
        "dast_configuration",
        "dependencies",
        "environment",
        "except",
        "extends",
        "hooks",
        "identity",
        "id_tokens",
        "image",
        "inherit",
        "inputs",
        "interruptible",
        "manual_confirmation",
        "needs",
        "only",
        "pages",
        "parallel",
        "publish",
        "release",
        "resource_group",
        "retry",
        "rules",
        "run",
        "script",
        "secrets",
        "services",
        "stage",
        "start_in",
        "tags",
        "timeout",
        "trigger",
        "variables",
        "when",
    ]
)

DEFAULT = frozenset(
    [
        "after_script",
        "artifacts",
        "before_script",
        "cache",
        "hooks",
        "id_tokens",
        "identity",
        "image",
        "interruptible",
        "retry",
        "services",
        "tags",
        "timeout",
    ]
)

NOT_YET = {
    "dast_configuration": "is ignored",
    "identity": "is ignored",
    "inputs": "is ignored",
}

CANT_RUN = {
    "run": "steps (`run:`) are not supported yet",
}

ARTIFACTS = frozenset(["paths", "exclude", "expire_in", "expose_as", "name", "untracked", "when", "reports", "public", "access"])
CACHE = frozenset(["key", "paths", "untracked", "when", "policy", "unprotect", "fallback_keys"])
RULE = frozenset(["if", "changes", "exists", "when", "allow_failure", "variables", "needs", "interruptible", "start_in", "auto_cancel"])
WORKFLOW = frozenset(["rules", "name", "auto_cancel"])
NEED = frozenset(["job", "artifacts", "optional", "parallel", "pipeline", "project", "ref"])
ONLY = frozenset(["refs", "variables", "changes", "kubernetes"])
ENVIRONMENT = frozenset(["name", "url", "action", "on_stop", "auto_stop_in", "deployment_tier", "kubernetes"])
RETRY = frozenset(["max", "when", "exit_codes"])
IMAGE = frozenset(["name", "entrypoint", "pull_policy", "docker", "kubernetes"])
SERVICE = frozenset(["name", "alias", "entrypoint", "command", "variables", "pull_policy", "docker", "kubernetes"])

REPORTS = frozenset(
    [
        "accessibility",
        "annotations",
        "api_fuzzing",
        "browser_performance",
        "cluster_image_scanning",
        "codequality",
        "container_scanning",
        "coverage_fuzzing",
        "coverage_report",
        "cyclonedx",
        "dast",
        "dependency_scanning",
        "dotenv",
        "junit",
        "license_scanning",
        "load_performance",
        "lsif",
        "metrics",
        "performance",
        "repository_xray",
        "requirements",
        "requirements_v2",
        "sarif",
        "sast",
        "secret_detection",
        "terraform",
    ]
)
READ_REPORTS = frozenset(("junit", "coverage_report", "dotenv"))

REF_KEYWORDS = frozenset(
    [
        "api",
        "branches",
        "chat",
        "external",
        "external_pull_requests",
        "merge_requests",
        "pipelines",
        "pushes",
        "schedules",
        "tags",
        "triggers",
        "web",
    ]
)
RETRY_REASONS = frozenset(
    [
        "always",
        "unknown_failure",
        "script_failure",
        "api_failure",
        "stuck_or_timeout_failure",
        "runner_system_failure",
        "runner_unsupported",
        "stale_schedule",
        "job_execution_timeout",
        "archived_failure",
        "unmet_prerequisites",
        "scheduler_failure",
        "data_integrity_failure",
        "forward_deployment_failure",
        "missing_dependency_failure",
    ]
)
STAGES = ("build", "test", "deploy")
