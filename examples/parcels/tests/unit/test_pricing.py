import pytest

from parcels.pricing import TooHeavy, UnknownZone, price_cents


@pytest.mark.parametrize(
    ("kg", "zone", "cents"),
    [(0.2, "home", 550), (1.0, "home", 550), (1.1, "home", 610), (2.5, "eu", 2020), (31.5, "world", 23470)],
)
def test_each_kilogram_that_is_begun_counts_whole(kg: float, zone: str, cents: int) -> None:
    assert price_cents(kg, zone) == cents


def test_an_unknown_zone_names_the_known_ones() -> None:
    with pytest.raises(UnknownZone, match="home, eu, world"):
        price_cents(1, "moon")


@pytest.mark.parametrize("kg", [0, -1, 31.6])
def test_no_carrier_takes_nothing_or_too_much(kg: float) -> None:
    with pytest.raises(TooHeavy):
        price_cents(kg, "home")
