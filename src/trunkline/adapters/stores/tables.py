"""The tables, once for SQLite and PostgreSQL. Migrations must lead to exactly this (a test compares)."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=_NAMES)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
)
tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("expires_at", Float, nullable=False),
)
projects = Table(
    "projects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", String(255), nullable=False, unique=True),
    Column("default_branch", String(255), nullable=False),
    Column("runs", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
)
refs = Table(
    "refs",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("ref", String(255), primary_key=True),
    Column("sha", String(64), nullable=False),
)
runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("ref", String(255), nullable=False),
    Column("is_tag", Boolean, nullable=False),
    Column("sha", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("source", String(40), nullable=False),
    Column("name", Text, nullable=False),
    Column("because", Text, nullable=False),
    Column("dialect", String(20), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("plan", LargeBinary, nullable=False),
    UniqueConstraint("project_id", "number"),
    Index("ix_runs_status", "status"),
)
versions = Table(  # beside the runs: they are large, and this changes with each of their jobs
    "versions",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("shape", Integer, nullable=False),  # the version in which the run got other jobs
)
jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("reason", String(40), nullable=False),
    Column("message", Text, nullable=False),
    Column("exit_code", Integer),
    Column("queued_at", Float),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("coverage", Float),
    Column("environment_note", Text, nullable=False),
    Column("dotenv", JSON),
    Column("downstream", JSON),
    Column("worker", JSON),
    Column("server", String(255), nullable=False, server_default=""),
    Column("version", Integer, nullable=False, server_default="0"),  # that of its run when it was changed last
    Column("definition", LargeBinary, nullable=False),
)
artifacts = Table(  # those that lie in a bucket
    "artifacts",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("run_id", Integer, nullable=False),
    Column("kept_at", Float, nullable=False),
    Column("listing", LargeBinary, nullable=False),
    Column("expires_at", Float, index=True),
)
attempts = Table(
    "attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("status", String(20), nullable=False),
    Column("reason", String(40), nullable=False),
    Column("message", Text, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
)
reports = Table(
    "reports",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("kind", String(40), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
deployments = Table(
    "deployments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False, index=True),
    Column("environment", String(255), nullable=False),
    Column("url", Text, nullable=False),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("job", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("created_at", Float, nullable=False),
)
releases = Table(
    "releases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", String(255), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("sha", String(64), nullable=False),
    Column("body", JSON, nullable=False),
)
rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", String(255), nullable=False, index=True),
    Column("environment", String(255), nullable=False),
    Column("status", String(20), nullable=False),
    Column("body", JSON, nullable=False),
)
schedules = Table(
    "schedules",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", String(255), nullable=False, index=True),
    Column("body", JSON, nullable=False),
)
documents = Table(
    "documents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("project", String(255), nullable=False),
    Column("body", JSON, nullable=False),
    Index("ix_documents_kind", "kind", "project"),
)
facts = Table(
    "facts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("kind", String(40), nullable=False),
    Column("job", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("at", Float, nullable=False),
)
