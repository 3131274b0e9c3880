"""Benchmarks that print ratios: every round runs each contestant once, side by side, so that a drift of the machine hits all of them.

`python3 dev.py bench` runs all, `python3 dev.py bench run plan` some. Peers are installed by the bench itself into .venv-bench; a peer that
can't be had is named, and its column stays empty. Ratios are medians of the ratios of each round.
"""
