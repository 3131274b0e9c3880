"""What is read of the output of docker build."""

import pytest

from trunkline.execution import image_builds

OLD = """Sending build context to Docker daemon  15.87kB
Step 1/4 : FROM python:3.8
 ---> 5f0f2bc7ac2c
Step 2/4 : RUN apt-get update
 ---> Using cache
 ---> 441d83d80d3b
Step 3/4 : COPY ./ ./
 ---> {copied}6df3dcb9d99b
Step 4/4 : RUN pip install -r requirements.txt
 ---> {ran}c78776df1d24
Successfully built c78776df1d24
"""
NEW = """#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#5 [1/3] FROM docker.io/library/python:3.8
#5 DONE 0.0s
#6 [2/3] RUN true
#6 CACHED
#7 [stage-1 3/3] COPY . .
#7 {state}
#8 exporting to image
#8 DONE 0.1s
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            OLD.format(copied="Using cache\n ---> ", ran="Using cache\n ---> "),
            "image reused: its Dockerfile and files have not changed (3 steps from the cache)",
        ),
        (OLD.format(copied="", ran="Running in 1\n ---> "), "image built: 2 of 3 steps anew, the first is COPY ./ ./"),
        (NEW.format(state="CACHED"), "image reused: its Dockerfile and files have not changed (2 steps from the cache)"),
        (NEW.format(state="DONE 0.2s"), "image built: 1 of 2 steps anew, the first is COPY . ."),
        ("no build at all\n", ""),
    ],
)
def test_a_build_is_told_with_the_reason(log: str, said: str) -> None:
    assert image_builds.told(log.splitlines()) == said
