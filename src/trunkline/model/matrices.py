"""A matrix of GitHub -> its combinations. Source: GitHub's documentation of `strategy.matrix`, `include` and `exclude`."""

import itertools
from collections.abc import Mapping, Sequence

from trunkline.model.expressions import as_values, to_text

MOST = 256  # GitHub's limit of jobs per workflow run

Combination = dict[str, object]


def combinations(
    axes: Mapping[str, Sequence[object]], include: Sequence[Combination] = (), exclude: Sequence[Combination] = ()
) -> list[Combination]:
    """Return every combination of the axes, the last changing fastest, less what `exclude` names; then what `include` adds to them or beside them.

    An entry of `include` is added to each combination whose axes it does not overwrite; where there is none, it is one of its own.
    """
    made: list[Combination] = []
    if axes:
        for values in itertools.product(*axes.values()):
            combination = dict(zip(axes, values, strict=True))
            if not any(all(combination.get(name) == value for name, value in entry.items()) for entry in exclude):
                made.append(combination)
    originals = [dict(combination) for combination in made]
    beside: list[Combination] = []
    for entry in include:
        fits = [
            i for i, original in enumerate(originals) if all(original[name] == value for name, value in entry.items() if name in original)
        ]
        for i in fits:
            made[i].update(entry)
        if not fits:
            beside.append(dict(entry))
    return made + beside


def name_of(job: str, combination: Combination) -> str:
    """Return the name of one leg as GitHub shows it: the values behind the job's name."""
    shown = [to_text(as_values(value)) for value in combination.values() if not isinstance(value, (dict, list))]
    return f"{job} ({', '.join(shown)})" if shown else job
