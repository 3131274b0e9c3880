"""What a job's log says about the images that it has built: which steps came from the cache, and which was the first that did not, and so the reason.

Read are the outputs of `docker build`: those of the old builder (`Step 2/5 : RUN ...`, ` ---> Using cache`) and of BuildKit (`#6 [2/5] RUN ...`,
`#6 CACHED`).
"""

import re
from collections.abc import Iterable

from trunkline.kit.record import mutable
from trunkline.kit.words import plural

_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)")
_STAGE = re.compile(r"#(\d+) \[(?:[\w.-]+ )?(\d+)/(\d+)\] (.*)")
_STATE = re.compile(r"#(\d+) (CACHED|DONE)")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@mutable
class _Step:
    text: str
    is_cached: bool = False


def told(lines: Iterable[str]) -> str:
    """Return a sentence about the builds in a log, "" where there are none."""
    steps = [s for s in _steps(lines) if not s.text.upper().startswith("FROM ")]
    anew = [s for s in steps if not s.is_cached]
    if not steps:
        return ""
    if not anew:
        return f"image reused: its Dockerfile and files have not changed ({plural(len(steps), 'step')} from the cache)"
    first = re.sub(r"\s+", " ", anew[0].text)
    first = first if len(first) <= 60 else first[:57] + "..."
    return f"image built: {len(anew)} of {plural(len(steps), 'step')} anew, the first is {first}"


def _steps(lines: Iterable[str]) -> list[_Step]:
    steps: list[_Step] = []
    numbered: dict[str, _Step] = {}
    for raw in lines:
        line = _ESCAPES.sub("", raw).strip()
        if match := _STEP.match(line):
            steps.append(_Step(match[3]))
        elif line == "---> Using cache" and steps:
            steps[-1].is_cached = True
        elif match := _STAGE.match(line):
            if match[1] not in numbered:
                numbered[match[1]] = _Step(match[4])
                steps.append(numbered[match[1]])
        elif (match := _STATE.match(line)) and match[1] in numbered:
            numbered[match[1]].is_cached = numbered[match[1]].is_cached or match[2] == "CACHED"
    return steps
