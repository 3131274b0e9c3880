"""What an action says of itself (`action.yml`), as whoever runs it needs it."""

from trunkline.kit.record import record
from trunkline.model.workflows import Pairs, Step


@record
class ActionValue:
    """An input of an action; `default` may hold expressions."""

    name: str
    default: str = ""
    is_required: bool = False
    has_default: bool = False


@record
class ActionMetadata:
    """An action. `using` is composite, docker or node; the programs of a JavaScript action are paths in its folder.

    A Docker action has an `image` (a Dockerfile of its folder, or docker://NAME), whose entrypoint, arguments and environment may hold expressions.
    """

    name: str
    using: str
    inputs: tuple[ActionValue, ...] = ()
    outputs: Pairs = ()
    steps: tuple[Step, ...] = ()
    main: str = ""
    pre: str = ""
    post: str = ""
    pre_if: str = ""
    post_if: str = ""
    image: str = ""
    entrypoint: str = ""
    arguments: tuple[str, ...] = ()
    env: Pairs = ()
