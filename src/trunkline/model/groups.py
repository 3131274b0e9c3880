"""Resource groups: jobs of a project of which one runs at a time."""

from trunkline.kit.record import record

MODES = ("unordered", "oldest_first", "newest_first", "newest_ready_first")


@record
class ResourceGroup:
    """How the next job of a group is chosen: whichever comes, that of the oldest or newest run that has one, or of the newest that could start now."""

    id: int
    project: str
    name: str
    mode: str = "unordered"
