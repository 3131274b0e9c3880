"""The change that is made most often, without what statements of any kind need: one job of a run has moved on. There are two such changes for each job.

PostgreSQL is told all of it in a single statement, each part a common table expression (its documentation, "Data-Modifying Statements in WITH"): a word
with the database costs more than the change itself. What the statements say is put into text once, by SQLAlchemy.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import JSON, BindParameter, Column, Connection, Dialect, Update, bindparam, cast, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from trunkline.adapters.stores import tables as t

_JOB, _ATTEMPT, _FACT = "job_", "attempt_", "fact_"  # before the names of parameters: the tables share names of columns
_TOLD = tuple(c for c in t.facts.c if c.name != "id")
_PLAIN = {prefix + c.name for prefix, table in ((_JOB, t.jobs), (_FACT, t.facts)) for c in table.c if isinstance(c.type, JSON)}


def move(
    connection: Connection, run: int, known: int, job: Mapping[str, Any], attempt: Mapping[str, Any] | None, fact: Mapping[str, Any] | None
) -> bool:
    """Save what has changed of a job (columns, and its id as `which`), the attempt that has ended with it and what is told of it, and the run's version.

    Return whether the run was at the version that is known; if not, nothing is saved.
    """
    given: dict[str, Any] = {"run": run, "known": known}
    for prefix, values in ((_JOB, job), (_ATTEMPT, attempt or {}), (_FACT, fact or {})):
        given |= {prefix + name: value for name, value in values.items()}
    for name in _PLAIN & given.keys():
        given[name] = msgspec.json.encode(given[name]).decode()
    columns, dialect = tuple(name for name in job if name != "which"), connection.dialect
    if dialect.name == "postgresql":
        return bool(connection.exec_driver_sql(_whole(dialect, columns, attempt is not None, fact is not None), given).scalar_one())
    (text, names), *others = _parts(dialect, columns, attempt is not None, fact is not None)
    if connection.exec_driver_sql(text, tuple(given[n] for n in names)).rowcount != 1:
        return False
    for text, names in others:
        connection.exec_driver_sql(text, tuple(given[n] for n in names))
    return True


@cache
def _whole(dialect: Dialect, columns: tuple[str, ...], has_attempt: bool, has_fact: bool) -> str:
    """For PostgreSQL: everything in one statement, which counts the runs that were at the version."""
    versions = _next_version().returning(t.versions.c.run_id).cte("versioned")
    parts = [_moved(columns).where(t.jobs.c.run_id == versions.c.run_id).cte("moved")]
    if has_attempt:
        row = select(*(_cast(_ATTEMPT, c) for c in t.attempts.c)).select_from(versions)
        parts.append(keeping(postgresql.insert(t.attempts).from_select([c.name for c in t.attempts.c], row)).cte("ended"))
    if has_fact:
        told = select(*(_cast(_FACT, c) for c in _TOLD)).select_from(versions)
        parts.append(insert(t.facts).from_select([c.name for c in _TOLD], told).cte("told"))
    return str(select(func.count()).select_from(versions).add_cte(*parts).compile(dialect=dialect))


@cache
def _parts(dialect: Dialect, columns: tuple[str, ...], has_attempt: bool, has_fact: bool) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """For SQLite: one statement after the other, each with the names of its parameters in their order."""
    parts: list[Any] = [_next_version(), _moved(columns)]
    if has_attempt:
        parts.append(keeping(sqlite.insert(t.attempts).inline().values({c.name: _parameter(_ATTEMPT, c) for c in t.attempts.c})))
    if has_fact:
        parts.append(insert(t.facts).inline().values({c.name: _parameter(_FACT, c) for c in _TOLD}))
    compiled = [part.compile(dialect=dialect) for part in parts]
    return tuple((str(one), tuple(one.positiontup)) for one in compiled)


def _next_version() -> Update:
    known = (t.versions.c.run_id == bindparam("run"), t.versions.c.version == bindparam("known"))
    return update(t.versions).where(*known).values(version=bindparam("job_version"))


def _moved(columns: tuple[str, ...]) -> Update:
    return update(t.jobs).where(t.jobs.c.id == bindparam("job_which")).values({name: _parameter(_JOB, t.jobs.c[name]) for name in columns})


def _parameter(prefix: str, column: Column[Any]) -> BindParameter[Any]:
    return bindparam(prefix + column.name, type_=column.type)


def _cast(prefix: str, column: Column[Any]) -> Any:
    """A parameter in a SELECT, where nothing else says of which type it is."""
    return cast(_parameter(prefix, column), column.type)


def keeping(new: Any) -> Any:
    """Return an insert of attempts (of either dialect) that takes the place of what was known of the attempt."""
    said = {c.name: new.excluded[c.name] for c in t.attempts.c if not c.primary_key}
    return new.on_conflict_do_update(index_elements=list(t.attempts.primary_key), set_=said)
