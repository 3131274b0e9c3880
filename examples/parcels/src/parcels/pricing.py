"""The price list."""

from __future__ import annotations

BASE_CENTS = {"home": 490, "eu": 1390, "world": 2990}
CENTS_PER_KG = {"home": 60, "eu": 210, "world": 640}
MAX_KG = 31.5


class UnknownZone(ValueError):
    """There is no price for this zone."""


class TooHeavy(ValueError):
    """No carrier takes a parcel of this weight."""


def price_cents(kg: float, zone: str) -> int:
    """Return the price in cents; each kilogram that is begun counts whole."""
    if zone not in BASE_CENTS:
        raise UnknownZone(f"no zone {zone!r}; zones are {', '.join(BASE_CENTS)}")
    if not 0 < kg <= MAX_KG:
        raise TooHeavy(f"a parcel weighs more than 0 and at most {MAX_KG} kg")
    begun = int(kg) + (kg > int(kg))
    return BASE_CENTS[zone] + begun * CENTS_PER_KG[zone]
