"""Records behave as dataclasses do, where the house relies on it."""

import pickle

import pytest

from trunkline.kit.codec import from_plain, to_plain
from trunkline.kit.record import field, mutable, record, replace
from trunkline.model.pipelines import Job
from trunkline.testing.builders import a_job


@record
class Point:
    """A point."""

    x: int
    y: int = 2
    tags: tuple[str, ...] = ()
    secret: str = field(default="s", repr=False)


@mutable
class Bag:
    """A bag."""

    items: list[int] = field(default_factory=list)


def test_a_record_is_equal_by_value_and_hashable() -> None:
    assert Point(1) == Point(1, 2)
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_a_record_can_not_change() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        Point(1).x = 3  # type: ignore[misc]


def test_a_secret_is_not_shown() -> None:
    assert repr(Point(1)).endswith("Point(x=1, y=2, tags=())")


def test_replace_refuses_a_field_that_is_not_there() -> None:
    assert replace(Point(1), y=5) == Point(1, 5)
    with pytest.raises(TypeError, match="'z'"):
        replace(Point(1), z=5)


def test_a_missing_or_doubled_value_is_refused() -> None:
    with pytest.raises(TypeError, match="'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Point(1, x=2)  # type: ignore[misc]


def test_a_factory_makes_a_new_value_each_time() -> None:
    a, b = Bag(), Bag()
    a.items.append(1)

    assert b.items == []


def test_records_survive_pickle_and_plain_values() -> None:
    job = a_job("build", needs=("a", "b")).job

    assert pickle.loads(pickle.dumps(job)) == job
    assert from_plain(Job, to_plain(job)) == job
