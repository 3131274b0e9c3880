"""The change that is made most often as a single statement, where the database can do that: one job of a run has moved on.

PostgreSQL takes several changes in one statement, each a common table expression (its documentation, "Data-Modifying Statements in WITH"). A word with
the database costs more than the change itself, and there are two such changes for each job. What the statement says is put into text once.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import JSON, Column, Connection, bindparam, cast, func, insert, select, update
from sqlalchemy.dialects import postgresql

from trunkline.adapters.stores import tables as t

_JOB, _ATTEMPT, _FACT = "job_", "attempt_", "fact_"  # before the names of parameters: the tables share names of columns
_TOLD = tuple(c for c in t.facts.c if c.name not in ("id", "run_id"))
_PLAIN = {prefix + c.name for prefix, table in ((_JOB, t.jobs), (_FACT, t.facts)) for c in table.c if isinstance(c.type, JSON)}


def move(
    connection: Connection, run: int, known: int, job: Mapping[str, Any], attempt: Mapping[str, Any] | None, fact: Mapping[str, Any] | None
) -> bool:
    """Save what has changed of a job (columns, and its id as `which`), the attempt that has ended with it and what is told of it, and the run's version.

    Return whether the run was at the version that is known; if not, nothing is saved. For PostgreSQL only.
    """
    given: dict[str, Any] = {"run": run, "known": known}
    for prefix, values in ((_JOB, job), (_ATTEMPT, attempt or {}), (_FACT, fact or {})):
        given |= {prefix + name: value for name, value in values.items()}
    for name in _PLAIN & given.keys():
        given[name] = msgspec.json.encode(given[name]).decode()
    text = _text(connection.dialect, tuple(name for name in job if name != "which"), attempt is not None, fact is not None)
    return bool(connection.exec_driver_sql(text, given).scalar_one())


@cache
def _text(dialect: Any, columns: tuple[str, ...], has_attempt: bool, has_fact: bool) -> str:
    versions = (
        update(t.versions)
        .where(t.versions.c.run_id == bindparam("run"), t.versions.c.version == bindparam("known"))
        .values(version=bindparam("job_version"))
        .returning(t.versions.c.run_id)
        .cte("versioned")
    )
    jobs = (
        update(t.jobs)
        .where(t.jobs.c.id == bindparam("job_which"), t.jobs.c.run_id == versions.c.run_id)
        .values({name: _given(_JOB, t.jobs.c[name]) for name in columns})
    )
    parts = [jobs.cte("moved")]
    if has_attempt:
        row = select(*(_given(_ATTEMPT, c) for c in t.attempts.c)).select_from(versions)
        parts.append(keeping(postgresql.insert(t.attempts).from_select([c.name for c in t.attempts.c], row)).cte("ended"))
    if has_fact:
        told = select(versions.c.run_id, *(_given(_FACT, c) for c in _TOLD)).select_from(versions)
        parts.append(insert(t.facts).from_select(["run_id", *(c.name for c in _TOLD)], told).cte("told"))
    return str(select(func.count()).select_from(versions).add_cte(*parts).compile(dialect=dialect))


def _given(prefix: str, column: Column[Any]) -> Any:
    """A parameter with its type, which nothing else says in a SELECT."""
    return cast(bindparam(prefix + column.name, type_=column.type), column.type)


def keeping(new: Any) -> Any:
    """Return an insert of attempts (of either dialect) that takes the place of what was known of the attempt."""
    said = {c.name: new.excluded[c.name] for c in t.attempts.c if not c.primary_key}
    return new.on_conflict_do_update(index_elements=list(t.attempts.primary_key), set_=said)
