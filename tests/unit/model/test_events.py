"""Which events are about a protected ref."""

import pytest

from trunkline.model.events import Event, EventKind
from trunkline.testing.builders import an_event


@pytest.mark.parametrize(
    ("event", "protected"),
    [
        (an_event("main"), True),
        (an_event("v1", is_tag=True), True),
        (an_event("topic"), False),
        (an_event("main", EventKind.CHANGE_REQUEST), False),
    ],
)
def test_the_default_branch_and_tags_are_protected_but_no_request_from_a_branch_called_alike(event: Event, protected: bool) -> None:
    assert event.is_protected("main") is protected
