"""What a server leaves for the one that leads: saved, so that it is done even if both stop meanwhile."""

from trunkline.kit.record import record


@record
class Errand:
    """What is to be done for a project. `what`: green (the run `run` has passed), gone (the branch `ref` was deleted)."""

    id: int
    project: str
    what: str
    run: int = 0
    ref: str = ""
