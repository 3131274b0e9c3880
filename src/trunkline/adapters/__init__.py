"""Rooms of variants: each room implements one port. A room never imports another; only `wiring` knows them by name."""
