"""A job as runners of GitLab's protocol get it. Source: the runner protocol, its sections on the payload, variables, git, artifacts and caches."""

from typing import TYPE_CHECKING, Any

from trunkline.execution.caches import keyed
from trunkline.kit import processes
from trunkline.kit.codec import to_plain
from trunkline.model.errors import ConfigError
from trunkline.model.expressions import ExpressionMistake
from trunkline.model.pipelines import Artifacts, Cache, Image, Service, When
from trunkline.model.runs import JobRun, Run
from trunkline.model.variables import Variable, expand, resolve
from trunkline.pipeline.variables import artifact_sources

if TYPE_CHECKING:
    from trunkline.server.fleet import Fleet

DEPTH = 20
AFTER_SCRIPT = 300
FAILURES = (
    "script_failure", "runner_system_failure", "job_execution_timeout", "image_pull_failure", "unknown_failure", "runner_configuration_error",
    "runner_external_dependency_failure", "runner_interrupted", "job_canceled",
)  # fmt: skip
# report -> format, and the name of its file
REPORTS = {
    "junit": ("gzip", "junit.xml"), "coverage_report": ("gzip", "cobertura-coverage.xml"), "cobertura": ("gzip", "cobertura-coverage.xml"),
    "dotenv": ("gzip", ".env"), "codequality": ("raw", "gl-code-quality-report.json"), "cyclonedx": ("gzip", "gl-sbom.cdx.json"),
    "annotations": ("gzip", "gl-annotations.json"), "metrics": ("gzip", "metrics.txt"), "lsif": ("zip", "lsif.json"),
}  # fmt: skip


def payload(fleet: "Fleet", run: Run, job: JobRun, secret: str) -> dict[str, Any]:
    """Return what is handed out; raises a TrunklineError where something of it is missing."""
    line, j = fleet.line, job.job
    assert job.worker is not None
    runner = fleet.find(job.worker.runner)
    variables = line.assigner.far_variables(run, job, secret)
    values = resolve(variables)
    project = line.project(run.project)
    timeout = min(t for t in (j.timeout or line.job_timeout, runner.maximum_timeout) if t)
    _keep_commit(fleet, run)
    event = run.event
    host = line.url.partition("://")
    depth = values.get("GIT_DEPTH", str(DEPTH))
    return {
        "id": job.id,
        "token": secret,
        "allow_git_fetch": True,
        "job_info": {
            "id": job.id, "name": job.name, "stage": j.stage, "pipeline_id": run.id, "project_id": project.id if project else 0,
            "project_name": run.project.rpartition("/")[2], "project_full_path": run.project, "namespace_id": 1, "root_namespace_id": 1,
            "organization_id": 1, "instance_id": line.url, "user_id": 1, "time_in_queue_seconds": max(0.0, (job.started_at or 0) - (job.queued_at or 0)),
            "project_jobs_running_on_instance_runners_count": "+Inf", "queue_size": 0, "queue_depth": 0,
        },
        "git_info": {
            "repo_url": f"{host[0]}://gitlab-ci-token:{secret}@{host[2]}/{run.project}.git", "repo_object_format": "sha1", "ref": event.ref,
            "sha": event.revision.sha, "before_sha": event.before, "ref_type": "tag" if event.is_tag else "branch",
            "refspecs": _refspecs(run), "depth": int(depth) if depth.isdigit() else DEPTH, "protected": line.assigner.is_protected(run),
        },
        "runner_info": {"uuid": "", "timeout": int(timeout), "runner_session_url": None},
        "inputs": [],
        "variables": [_variable(v, values) for v in _last(variables)],
        "steps": _steps(job, int(timeout)),
        "image": _image(j.image),
        "services": [_service(s, values) for s in j.services],
        "artifacts": _artifacts(j.artifacts, values),
        "cache": [_cache(c, run, values, line.assigner.is_protected(run), line.repositories.git_dir(run.project)) for c in j.caches],
        "credentials": _credentials(values),
        "dependencies": _dependencies(fleet, run, job, secret),
        "features": {"trace_sections": True, "token_mask_prefixes": ["glcbt-", "glrt-", "tl_"], "failure_reasons": list(FAILURES)},
        **_whole(fleet, run, job, secret),
        "hooks": [{"name": "pre_get_sources_script", "script": list(j.pre_get_sources)}] if j.pre_get_sources else [],
    }  # fmt: skip


def _whole(fleet: "Fleet", run: Run, job: JobRun, secret: str) -> dict[str, Any]:
    """Return what our own runner is sent beside the protocol: the job as it is, and what its expressions see."""
    assert job.worker is not None
    if "trunkline_steps" not in job.worker.features:
        return {}
    contexts, named = None, []
    if job.job.workflow is not None:
        try:
            contexts = fleet.line.workflows.contexts(run, job, secret)
        except ExpressionMistake as mistake:
            raise ConfigError(f"what was handed to the workflow can't be read: {mistake}") from None
        named = sorted(fleet.line.artifacts.kept(run.id, [j.id for j in run.jobs if j.id != job.id]))
    return {"trunkline": {"job": to_plain(job.job), "project": run.project, "contexts": contexts, "named": named, "label": job.worker.name}}


def _credentials(values: dict[str, str]) -> list[dict[str, str]]:
    """Return the login for the registry that this server stands for."""
    if not values.get("CI_REGISTRY") or not values.get("CI_REGISTRY_PASSWORD"):
        return []
    return [
        {
            "type": "registry",
            "url": values["CI_REGISTRY"],
            "username": values.get("CI_REGISTRY_USER", ""),
            "password": values["CI_REGISTRY_PASSWORD"],
        }
    ]


def _keep_commit(fleet: "Fleet", run: Run) -> None:
    """Let a ref lead to the run's commit, so that it can be fetched whatever becomes of its branch."""
    if fleet.referred.get(run.id):
        return
    git_dir = fleet.line.repositories.git_dir(run.project)
    if not processes.output(["git", f"--git-dir={git_dir}", "update-ref", f"refs/pipelines/{run.id}", run.event.revision.sha])[0]:
        fleet.referred[run.id] = run.project


def _refspecs(run: Run) -> list[str]:
    own = f"+refs/pipelines/{run.id}:refs/pipelines/{run.id}"
    if run.event.is_request:
        return [own]
    if run.event.is_tag:
        return [own, f"+refs/tags/{run.event.ref}:refs/tags/{run.event.ref}"]
    return [own, f"+refs/heads/{run.event.ref}:refs/remotes/origin/{run.event.ref}"]


def _last(variables: tuple[Variable, ...]) -> list[Variable]:
    """Return each variable once, the last of its name, in their order."""
    found: dict[str, Variable] = {}
    for v in variables:
        found.pop(v.name, None)
        found[v.name] = v
    return list(found.values())


def _variable(v: Variable, values: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "key": v.name,
        "value": v.value if v.file else values.get(v.name, v.value),
        "public": not v.masked,
        "masked": v.masked,
    }
    if v.file:
        told["file"] = True
    if v.raw:
        told["raw"] = True
    return told


def _steps(job: JobRun, timeout: int) -> list[dict[str, Any]]:
    j = job.job
    steps = [{"name": "script", "script": [*j.before_script, *j.script], "timeout": timeout, "when": "on_success", "allow_failure": False}]
    if j.after_script:
        steps.append(
            {"name": "after_script", "script": list(j.after_script), "timeout": AFTER_SCRIPT, "when": "always", "allow_failure": True}
        )
    return steps


def _options(platform: str, user: str) -> dict[str, Any]:
    docker = {name: value for name, value in (("platform", platform), ("user", user)) if value}
    return {"executor_opts": {"docker": docker}} if docker else {}


def _image(image: Image | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {"name": image.name, "entrypoint": list(image.entrypoint) if image.entrypoint is not None else None, "pull_policy": list(image.pull) or None,
            **_options(image.platform, image.user)}  # fmt: skip


def _service(service: Service, values: dict[str, str]) -> dict[str, Any]:
    own = resolve([*(Variable(n, v, raw=True) for n, v in values.items()), *service.variables]) if service.variables else {}
    return {
        "name": service.name,
        "alias": service.alias or None,
        "entrypoint": list(service.entrypoint) if service.entrypoint is not None else None,
        "command": list(service.command) if service.command is not None else None,
        "pull_policy": list(service.pull) or None,
        "variables": [{"key": v.name, "value": own[v.name]} for v in service.variables],
        **_options(service.platform, service.user),
    }


def _artifacts(spec: Artifacts | None, values: dict[str, str]) -> list[dict[str, Any]]:
    if spec is None:
        return []
    found: list[dict[str, Any]] = []
    expires = f"{int(spec.expire_in)} seconds" if spec.expire_in is not None else "never"
    if spec.paths or spec.untracked:
        found.append({
            "name": expand(spec.name, values), "untracked": spec.untracked, "paths": list(spec.paths), "when": spec.when.value, "expire_in": expires,
            "artifact_type": "archive", "artifact_format": "zip", **({"exclude": list(spec.exclude)} if spec.exclude else {}),
        })  # fmt: skip
    for report in spec.reports:
        form, name = REPORTS.get(report.kind, ("raw", f"gl-{report.kind.replace('_', '-')}-report.json"))
        kind = {"coverage_report": "cobertura"}.get(report.kind, report.kind)
        found.append({"name": name, "untracked": False, "paths": list(report.paths), "when": When.ALWAYS.value, "expire_in": expires, "artifact_type": kind,
                      "artifact_format": form})  # fmt: skip
    return found


def _cache(cache: Cache, run: Run, values: dict[str, str], protected: bool, git_dir: str) -> dict[str, Any]:
    apart = "" if cache.unprotect else "-protected" if protected else "-non_protected"
    sha, git = run.event.revision.sha, ["git", f"--git-dir={git_dir}"]

    def content(name: str) -> bytes:  # such runners are told the key as it is, so it is made here, of the commit
        what = ["log", "-1", "--format=%H", sha, "--", name] if cache.by_commits else ["cat-file", "blob", f"{sha}:{name}"]
        code, told = processes.output([*git, *what])
        return told if code == 0 else b""

    key = keyed(cache, values, content) + apart
    return {
        "key": key, "paths": list(cache.paths), "untracked": cache.untracked, "policy": expand(cache.policy, values), "when": cache.when.value,
        "fallback_keys": [expand(k, values) + apart for k in cache.fallback_keys],
    }  # fmt: skip


def _dependencies(fleet: "Fleet", run: Run, job: JobRun, secret: str) -> list[dict[str, Any]]:
    found = []
    sources = [run.job(name) for name in artifact_sources(run, job)]
    kept = fleet.line.artifacts.kept(run.id, [other.id for other in sources])
    for other in sources:
        told: dict[str, Any] = {"id": other.id, "name": other.name, "token": secret}
        if other.id in kept:
            told["artifacts_file"] = {"filename": "artifacts.zip", "size": 1}
        found.append(told)
    return found
