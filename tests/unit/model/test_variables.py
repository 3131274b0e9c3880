"""References between variables."""

from trunkline.model.variables import Variable, expand, resolve


def test_all_three_notations_are_replaced_and_doubled_signs_stay() -> None:
    assert expand("$A-${A}-%A%-$$A-$B", {"A": "x"}) == "x-x-x-$$A-"


def test_unknown_names_may_stay() -> None:
    assert expand("$A/$B", {"A": "x"}, keep_unknown=True) == "x/$B"


def test_references_are_followed_whatever_the_order() -> None:
    assert resolve([Variable("A", "$B/a"), Variable("B", "$C/b"), Variable("C", "c")]) == {"A": "c/b/a", "B": "c/b", "C": "c"}


def test_later_entries_win_and_raw_ones_are_not_expanded() -> None:
    assert resolve([Variable("A", "1"), Variable("A", "2"), Variable("R", "$A", raw=True)]) == {"A": "2", "R": "$A"}


def test_a_circle_of_references_ends() -> None:
    assert set(resolve([Variable("A", "$B"), Variable("B", "$A")])) == {"A", "B"}
