"""What an included file is given, and what it makes of it."""

import pytest

from trunkline.model.pipelines import Pipeline
from trunkline.pipeline.compile import Compiled, compile_pipeline
from trunkline.testing.builders import Files
from trunkline.wiring.builtin import dialect


def compiled(main: str, part: str = "", **variables: str) -> Compiled:
    files = Files()
    files.files[".gitlab-ci.yml"], files.files["part.yml"] = main, part
    return compile_pipeline(dialect("gitlab"), files, variables)


def made(main: str, part: str = "", **variables: str) -> Pipeline:
    found = compiled(main, part, **variables)
    assert found.pipeline is not None, found.diagnostics
    return found.pipeline


PART = """
spec:
  inputs:
    stage: {default: test, options: [build, test]}
    name:
    count: {type: number, default: 2}
    quick: {type: boolean, default: false}
    lines: {type: array, default: ["echo one", "echo two"]}
    version: {default: v1.2.3, regex: '^v[0-9.]+$'}
---
"unit $[[ inputs.name ]]":
  stage: $[[ inputs.stage ]]
  parallel: $[[ inputs.count ]]
  interruptible: $[[ inputs.quick ]]
  script: $[[ inputs.lines ]]
  variables:
    TEXT: "$[[ inputs.name ]]-$[[ inputs.count ]]-$[[inputs.quick]] $[[ inputs.version | truncate(1,3) ]] $[[ matrix.X ]]"
    REF: $[[ inputs.name | expand_vars ]]
"""


def test_values_take_their_type_in_texts_keys_and_whole_values() -> None:
    jobs = made("include: [{local: part.yml, inputs: {name: $WHO, quick: true, stage: build}}]", PART, WHO="ada").jobs

    assert [j.name for j in jobs] == ["unit $WHO 1/2", "unit $WHO 2/2"]
    job = jobs[0]
    assert (job.stage, job.interruptible, job.script) == ("build", True, ("echo one", "echo two"))
    assert {v.name: v.value for v in job.variables} == {"TEXT": "$WHO-2-true 1.2 $[[ matrix.X ]]", "REF": "ada"}


def test_a_file_can_be_included_twice_with_other_inputs() -> None:
    pipeline = made("include: [{local: part.yml, inputs: {name: a, count: 1}}, {local: part.yml, inputs: {name: b, count: 1}}]", PART)

    assert [j.name for j in pipeline.jobs] == ["unit a 1/1", "unit b 1/1"]


def test_the_first_file_takes_its_defaults() -> None:
    assert made("spec: {inputs: {x: {default: echo}}}\n---\njob: {script: '$[[ inputs.x ]] hi'}").jobs[0].script == ("echo hi",)


@pytest.mark.parametrize(
    ("given", "said", "line"),
    [
        ("{}", 'the input "name" must be given', 1),
        ("{name: a, nmae: b}", 'there is no input "nmae"', 1),
        ("{name: 1}", 'the input "name" must be a string, this is a number', 1),
        ("{name: a, count: many}", 'the input "count" must be a number, this is a string', 1),
        ("{name: a, lines: x}", 'the input "lines" must be an array, this is a string', 1),
        ("{name: a, stage: deploy}", "must be one of build, test; this is deploy", 1),
        ("{name: a, version: latest}", "must match /^v[0-9.]+$/; this is 'latest'", 1),
    ],
)
def test_what_does_not_fit_is_named_where_it_was_given(given: str, said: str, line: int) -> None:
    found = compiled(f"include: [{{local: part.yml, inputs: {given}}}]", PART)

    assert found.pipeline is None
    assert any(said in d.message and d.place.file == ".gitlab-ci.yml" and d.place.line == line for d in found.errors), found.errors


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("spec: {inputs: {x: {default: a}}}\n---\njob: {script: '$[[ inputs.y ]]'}", 'there is no input "y"'),
        ("spec: {inputs: {x: {default: a}}}\n---\njob: {script: '$[[ inputs.x | upper ]]'}", "there is no function 'upper'"),
        ("spec: {inputs: {x: {default: 1, type: number}}}\n---\njob: {script: 'a $[[ inputs.x | expand_vars ]]'}", "takes a text"),
        ("spec: {inputs: {x: {default: a, type: date}}}\n---\njob: {script: a}", "must be one of array, boolean, number, string"),
        ("spec: {inputs: {x: {default: 1}}}\n---\njob: {script: a}", "spec:inputs:x:default must be a string, this is a number"),
        ("spec: {inputs: {x: {default: a, regex: '('}}}\n---\njob: {script: a}", "regex is no pattern"),
        ("spec: {input: {}}\n---\njob: {script: a}", 'spec has no keyword "input"'),
    ],
)
def test_mistakes_in_the_file_itself_have_their_place(part: str, said: str) -> None:
    found = compiled("include: part.yml", part)

    assert any(said in d.message and d.place.file == "part.yml" for d in found.errors), found.diagnostics


def test_a_file_that_asks_for_nothing_takes_nothing() -> None:
    found = compiled("include: [{local: part.yml, inputs: {x: 1}}]", "job: {script: a}")

    assert "part.yml takes no inputs" in found.errors[0].message


def test_rules_of_an_input_choose_its_default_and_options_by_those_before_it() -> None:
    text = """spec:
  inputs:
    cloud: {options: [aws, gcp], default: aws}
    size:
      rules:
        - {if: "$[[ inputs.cloud ]] == 'aws'", options: [small, large], default: small}
        - {if: "$[[ inputs.cloud ]] == 'gcp'", options: [n1], default: n1}
---
"$[[ inputs.cloud ]] $[[ inputs.size ]]": {script: x}
"""
    assert [j.name for j in made(text).jobs] == ["aws small"]
    assert [j.name for j in made(text.replace("default: aws}", "default: gcp}")).jobs] == ["gcp n1"]
