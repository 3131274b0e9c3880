"""Whose turn it is in a resource group."""

from pathlib import Path

import pytest

from trunkline.adapters.stores.sql import SqlStore
from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError
from trunkline.model.runs import Run, Status
from trunkline.server.groups import ResourceGroups
from trunkline.testing.builders import a_job, a_run


def _run(number: int, status: Status) -> Run:
    return replace(a_run(a_job("deploy", status=status, resource_group="production")), id=number)


@pytest.mark.parametrize(
    ("mode", "turn"),
    [("unordered", [2, 3]), ("oldest_first", []), ("newest_first", []), ("newest_ready_first", [3])],
)
def test_whose_turn_it_is(tmp_path: Path, mode: str, turn: list[int]) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.sqlite")
    groups = ResourceGroups(store)
    groups.set_mode("group/project", "production", mode)
    runs = [_run(1, Status.CREATED), _run(2, Status.QUEUED), _run(3, Status.QUEUED), _run(4, Status.CREATED)]
    assert [r.id for r in runs[1:3] if groups.may_start(r, r.jobs[0], runs)] == turn
    assert ResourceGroups(store).of("group/project")[0].mode == mode  # kept over a restart
    ready = [_run(1, Status.QUEUED), _run(4, Status.QUEUED)]
    first = {"unordered": [1, 4], "oldest_first": [1], "newest_first": [4], "newest_ready_first": [4]}[mode]
    assert [r.id for r in ready if groups.may_start(r, r.jobs[0], ready)] == first
    assert not groups.may_start(ready[0], ready[0].jobs[0], [*ready, _run(9, Status.RUNNING)])
    store.close()


def test_a_mode_that_is_none_is_refused(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.sqlite")
    with pytest.raises(ConfigError, match="can't be 'oldest'"):
        ResourceGroups(store).set_mode("g/p", "x", "oldest")
    store.close()
