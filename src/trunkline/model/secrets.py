"""CI/CD variables of a project that do not stand in its repository."""

from trunkline.kit.record import field, record


@record
class ProjectVariable:
    """One of them; its value is kept `sealed`, with the server's key. A secret is masked in logs, and no run of a stranger's change gets it.

    With `is_protected` only runs of the default branch and of tags get it; with `is_file` jobs get the path of a file that holds it.
    """

    id: int
    project: str
    name: str
    sealed: str = field(repr=False)
    is_secret: bool = False
    is_protected: bool = False
    is_file: bool = False
    by: str = ""
    changed_at: float = 0.0
