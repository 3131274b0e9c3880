"""The predefined variables: what a job may know of its event, project and run. Names and meaning as GitLab documents them."""

from collections.abc import Iterable, Mapping

from trunkline import __version__
from trunkline.kit.lazy import lazy
from trunkline.model.events import Event, EventKind, Proposal
from trunkline.model.pipelines import Job
from trunkline.model.runs import JobRun, Run, Status
from trunkline.model.variables import Variable, expand, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
else:
    re = lazy("re")

_SLUG = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


def slug(text: str, most: int = 63) -> str:
    """Return a text as it may stand in a host name: lower case, digits and dashes."""
    return "".join(c if c in _SLUG else "-" for c in text.lower())[:most].strip("-")


_TIERS = (  # words of names; the first tier that has one counts
    ("staging", r"(stg|stag|model|pre|demo|non-?prod)"),
    ("production", r"(prod|live)"),
    ("testing", r"(test|tst|\bint\b|integration|ac(ce|)pt|qa|qc|control|quality)"),
    ("development", r"(dev|review|trunk)"),
)


def tier_of(environment: str) -> str:
    """Return the deployment tier that an environment's name suggests (GitLab's documentation of deployment_tier)."""
    return next((tier for tier, pattern in _TIERS if re.search(pattern, environment, re.IGNORECASE)), "other")


def event_variables(event: Event, project: str, default_branch: str = "main", server: str = "") -> dict[str, str]:
    """Return what is known before any job is: the variables that rules and includes may ask for."""
    r = event.revision
    namespace, _, name = project.rpartition("/")
    host = server.split("://", 1)[-1].split("/", 1)[0]
    values = {
        "CI": "true",
        "GITLAB_CI": "true",
        "TRUNKLINE": "true",
        "CI_SERVER": "yes",
        "CI_SERVER_NAME": "Trunkline",
        "CI_SERVER_VERSION": __version__,
        "CI_SERVER_VERSION_MAJOR": __version__.split(".")[0],
        "CI_SERVER_VERSION_MINOR": __version__.split(".")[1],
        "CI_SERVER_VERSION_PATCH": __version__.split(".")[2],
        "CI_SERVER_REVISION": __version__,
        "GITLAB_FEATURES": "",
        "CI_COMMIT_SHA": r.sha,
        "CI_COMMIT_SHORT_SHA": r.short,
        "CI_COMMIT_BEFORE_SHA": event.before,
        "CI_COMMIT_REF_NAME": event.ref,
        "CI_COMMIT_REF_SLUG": slug(event.ref),
        "CI_COMMIT_TITLE": r.title,
        "CI_COMMIT_MESSAGE": r.message,
        "CI_COMMIT_DESCRIPTION": r.message.partition("\n")[2].strip(),
        "CI_COMMIT_AUTHOR": f"{r.author_name} <{r.author_email}>",
        "CI_COMMIT_TIMESTAMP": r.time,
        "CI_COMMIT_REF_PROTECTED": "true" if event.is_protected(default_branch) else "false",
        "CI_PIPELINE_SOURCE": event.kind.value,
        "CI_PROJECT_NAME": name,
        "CI_PROJECT_TITLE": name,
        "CI_PROJECT_PATH": project,
        "CI_PROJECT_PATH_SLUG": slug(project),
        "CI_PROJECT_NAMESPACE": namespace,
        "CI_PROJECT_ROOT_NAMESPACE": namespace.split("/")[0],
        "CI_PROJECT_VISIBILITY": "private",
        "CI_DEFAULT_BRANCH": default_branch,
        "CI_DEFAULT_BRANCH_SLUG": slug(default_branch),
        "CI_PROJECT_NAMESPACE_SLUG": slug(namespace),
        "CI_PROJECT_DESCRIPTION": "",
        "CI_PROJECT_REPOSITORY_LANGUAGES": "",
        "CI_CONFIG_PATH": ".gitlab-ci.yml",
        "GITLAB_USER_LOGIN": event.user,
        "GITLAB_USER_NAME": r.author_name,
        "GITLAB_USER_EMAIL": r.author_email,
    }
    if server:
        values |= {
            "CI_SERVER_URL": server,
            "CI_SERVER_HOST": host.split(":")[0],
            "CI_SERVER_PORT": host.partition(":")[2] or ("443" if server.startswith("https") else "80"),
            "CI_SERVER_SHELL_SSH_HOST": host.split(":")[0],
            "CI_SERVER_SHELL_SSH_PORT": "22",
            "CI_API_V4_URL": f"{server}/api/v4",
            "CI_PAGES_DOMAIN": host,
            "CI_PAGES_URL": f"{server}/pages/{project}",
            "CI_CONFIG_REF_URI": f"{host}/{project}//.gitlab-ci.yml@refs/{'tags' if event.is_tag else 'heads'}/{event.ref}",
            "CI_SERVER_FQDN": host,
            "CI_SERVER_PROTOCOL": server.split("://")[0],
            "CI_PROJECT_URL": f"{server}/{project}",
            "CI_REPOSITORY_URL": f"{server}/{project}.git",
        }
    if event.is_request:
        values |= _request_variables(event, project, default_branch, values.get("CI_PROJECT_URL", ""))
    elif event.is_tag:
        values["CI_COMMIT_TAG"] = event.ref
        values["CI_COMMIT_TAG_MESSAGE"] = event.tag_message
    else:
        values["CI_COMMIT_BRANCH"] = event.ref
        if event.open_requests:
            values["CI_OPEN_MERGE_REQUESTS"] = ",".join(event.open_requests[:4])
    if event.kind is EventKind.TRIGGER:
        values["CI_PIPELINE_TRIGGERED"] = "true"
    return values


def _request_variables(event: Event, project: str, default_branch: str, page: str) -> dict[str, str]:
    """Return what is known of the change request; on a laptop there is none yet, so it is the first one, of the branch to the default branch."""
    p = event.proposal or Proposal(1, event.revision.title, event.target or default_branch)
    values = {
        "CI_MERGE_REQUEST_ID": str(p.number),
        "CI_MERGE_REQUEST_IID": str(p.number),
        "CI_MERGE_REQUEST_REF_PATH": f"refs/merge-requests/{p.number}/" + ("merge" if p.kind == "merged_result" else "head"),
        "CI_MERGE_REQUEST_EVENT_TYPE": p.kind,
        "CI_MERGE_REQUEST_TITLE": p.title,
        "CI_MERGE_REQUEST_DESCRIPTION": p.description[:2700],
        "CI_MERGE_REQUEST_DESCRIPTION_IS_TRUNCATED": "true" if len(p.description) > 2700 else "false",
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": event.ref,
        "CI_MERGE_REQUEST_SOURCE_BRANCH_PROTECTED": "true" if event.ref == default_branch else "false",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": p.target,
        "CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED": "true" if p.target == default_branch else "false",
        "CI_MERGE_REQUEST_PROJECT_PATH": project,
        "CI_MERGE_REQUEST_SOURCE_PROJECT_PATH": project,
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": p.base,
        "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": p.source_sha if p.kind == "merged_result" else "",
        "CI_MERGE_REQUEST_TARGET_BRANCH_SHA": p.target_sha,
        "CI_MERGE_REQUEST_APPROVED": "true" if p.is_approved else "",
        "CI_MERGE_REQUEST_DRAFT": "true" if p.is_draft else "false",
        "CI_MERGE_REQUEST_SQUASH_ON_MERGE": "true" if p.squash else "false",
        "CI_OPEN_MERGE_REQUESTS": f"{project}!{p.number}",
    }
    if page:
        values |= {"CI_MERGE_REQUEST_PROJECT_URL": page, "CI_MERGE_REQUEST_SOURCE_PROJECT_URL": page}
    return {name: value for name, value in values.items() if value or name.endswith(("_SHA", "DESCRIPTION"))}


def job_variables(job: Job) -> dict[str, str]:
    """Return what a job knows of itself."""
    values = {
        "CI_JOB_NAME": job.name,
        "CI_JOB_NAME_SLUG": slug(job.name),
        "CI_JOB_STAGE": job.stage,
        "CI_JOB_GROUP_NAME": job.group or job.name,
        "CI_NODE_TOTAL": str(job.node_total),
    }
    if job.node_index:
        values["CI_NODE_INDEX"] = str(job.node_index)
    if job.timeout:
        values["CI_JOB_TIMEOUT"] = str(int(job.timeout))
    if job.image:
        values["CI_JOB_IMAGE"] = job.image.name
    return values


def assignment_variables(
    job: Job,
    predefined: Mapping[str, str],
    dotenv: Iterable[tuple[str, str]] = (),
    secrets: Iterable[Variable] = (),
    mine: Iterable[Variable] = (),
) -> tuple[Variable, ...]:
    """Return all variables of one attempt, lowest precedence first: predefined, the job's own, dotenv of needed jobs, the project's, `mine` last."""
    known = {**predefined, **job_variables(job)}
    fixed = tuple(Variable(n, v, raw=True) for n, v in known.items())
    given = tuple(Variable(n, v, raw=True) for n, v in dotenv)
    everything = (*fixed, *job.variables, *given, *secrets, *mine)
    if job.environment is None:
        return everything
    values = resolve(everything)
    name = expand(job.environment.name, values)
    url = expand(job.environment.url, values, keep_unknown=True)
    about = {
        "CI_ENVIRONMENT_NAME": name,
        "CI_ENVIRONMENT_SLUG": slug(name, 24),
        "CI_ENVIRONMENT_ACTION": job.environment.action,
        "CI_ENVIRONMENT_TIER": job.environment.tier or tier_of(name),
        "CI_ENVIRONMENT_URL": url,
    }
    return (*everything, *(Variable(n, v, raw=True) for n, v in about.items()))


def artifact_sources(run: Run, job: JobRun) -> tuple[str, ...]:
    """Return the jobs whose artifacts this one is given: its dependencies, else its needs, else every earlier stage."""
    if job.job.dependencies is not None or job.job.needs is not None:
        asked = tuple(n.job for n in job.job.needs or () if n.artifacts)
        named = job.job.dependencies
        named = asked if named is None else named if job.job.needs is None else tuple(n for n in named if n in asked)
        there = {n: run.job(n) for n in named if run.has(n)}
    else:
        earlier = frozenset(run.stages[: run.stages.index(job.job.stage)] if job.job.stage in run.stages else ())
        there = {j.name: j for j in run.jobs if j.job.artifacts is not None and j.job.stage in earlier} if earlier else {}
    return tuple(n for n, j in there.items() if j.job.artifacts is not None and j.status is not Status.SKIPPED)
