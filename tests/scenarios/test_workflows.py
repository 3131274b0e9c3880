"""GitHub workflows with `trunkline run`: what steps may say and use, what jobs tell each other. Everything is a real run in a real checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeRepository, git

HEAD = "on: push\njobs:\n"


def run(folder: Path, *words: str, code: int | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run; return what it says, with jobs by name and the logs without colours."""
    command = [sys.executable, "-m", "trunkline", "run", "--json", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **(env or {})})
    if not done.stdout:
        return {"status": None, "code": done.returncode, "said": done.stderr, "jobs": {}, "logs": {}}
    told = json.loads(done.stdout)
    assert code is None or done.returncode == code, done.stderr
    jobs = {j["name"]: j for j in told["jobs"]}
    logs = {
        n: re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", Path(j["log"]).read_text()) for n, j in jobs.items() if j["log"] and Path(j["log"]).exists()
    }
    return {"status": told["status"], "code": done.returncode, "said": done.stderr, "jobs": jobs, "logs": logs}


def statuses(told: dict[str, Any]) -> dict[str, str]:
    return {name: j["status"] for name, j in told["jobs"].items()}


def one_job(steps: str, more: str = "") -> dict[str, str]:
    indented = "\n".join(f"      {line}" if line else "" for line in steps.strip("\n").split("\n"))
    return {".github/workflows/ci.yml": f"{HEAD}  a:\n    runs-on: ubuntu-latest\n{more}    steps:\n{indented}\n"}


def test_environment_files_commands_and_outputs(repository: MakeRepository) -> None:
    steps = """
- id: one
  run: |
    echo "v=42" >> $GITHUB_OUTPUT
    { echo "LINES<<END"; echo first; echo second; echo END; } >> $GITHUB_ENV
    mkdir -p bin && printf '#!/bin/sh\\necho from-the-path' > bin/tool && chmod +x bin/tool && echo "$PWD/bin" >> $GITHUB_PATH
    echo "::add-mask::hidden-word"
- run: |
    echo "out ${{ steps.one.outputs.v }}"; tool; echo "$LINES"; echo "now hidden-word"
    echo "::group::A group"; echo inside; echo "::endgroup::"
    echo "::stop-commands::tok"; echo "::add-mask::visible-word"; echo "::tok::"; echo visible-word
    echo "::set-env name=X::y"
- run: test -z "$X"
"""
    told = run(repository(one_job(steps)), code=0)
    log = told["logs"]["a"]
    assert "out 42" in log
    assert "from-the-path" in log
    assert "first\nsecond" in log
    assert "now [MASKED]" in log
    assert "\nvisible-word" in log
    assert "the command set-env is disabled" in log


def test_conditions_continue_on_error_and_what_comes_after_a_failure(repository: MakeRepository) -> None:
    steps = """
- id: soft
  continue-on-error: true
  run: exit 3
- run: 'echo "soft ${{ steps.soft.outcome }} ${{ steps.soft.conclusion }}"'
- id: hard
  run: exit 4
- run: echo not-this
- if: failure() && steps.hard.outcome == 'failure'
  run: 'echo "cleanup ${{ job.status }}"'
- if: ${{ always() }}
  run: echo always
- if: success()
  run: echo nor-this
"""
    told = run(repository(one_job(steps)), code=1)
    log = told["logs"]["a"]
    assert "soft failure success" in log
    assert "cleanup failure" in log
    assert "\nalways\n" in log
    assert "\nnot-this" not in log
    assert "\nnor-this" not in log
    assert told["jobs"]["a"]["message"] == "Run exit 4: exit code 4"


def test_shells(repository: MakeRepository) -> None:
    steps = """
- run: false | true && echo without-pipefail
- shell: bash
  continue-on-error: true
  id: strict
  run: |
    false | true
    echo not-reached
- run: test ${{ steps.strict.outcome }} = failure
- shell: sh
  run: test -z "$BASH_VERSION" -o -n "$0" && echo sh-runs
- shell: python
  run: |
    import sys
    print("python", sys.version_info[0])
- shell: perl {0}
  run: print "perl $]\\n";
- shell: nothing-here {0}
  continue-on-error: true
  run: x
- working-directory: sub
  continue-on-error: true
  run: pwd
- run: |
    first_line=1
    no-such-command
  continue-on-error: true
"""
    log = run(repository(one_job(steps)), code=0)["logs"]["a"]
    assert "without-pipefail" in log
    assert "\nnot-reached" not in log.split("shell")[0].replace("echo not-reached", "")
    assert "sh-runs" in log
    assert "python 3" in log
    assert "perl 5" in log
    assert "the shell nothing-here is not on this machine" in log
    assert "the working directory 'sub' does not exist" in log
    assert "line 2: no-such-command" in log


def test_a_failing_leg_cancels_the_others_unless_told_otherwise(repository: MakeRepository) -> None:
    job = """
  KEY:
    runs-on: ubuntu-latest
    strategy: {fail-fast: FAST, matrix: {n: [0, 1, 2]}}
    steps: [{run: 'if [ ${{ matrix.n }} = 0 ]; then sleep 0.5; exit 1; fi; sleep ${{ matrix.n == 1 && 20 || 0 }}'}]
"""
    files = {".github/workflows/ci.yml": HEAD + job.replace("KEY", "fast").replace("FAST", "true")}
    told = run(repository(files), "-j", "3", code=1)
    assert statuses(told) == {"fast (0)": "failed", "fast (1)": "canceled", "fast (2)": "passed"}
    assert told["jobs"]["fast (1)"]["message"] == "fast (0) failed, and the matrix says fail-fast"


def test_the_most_that_run_at_once(repository: MakeRepository, tmp_path: Path) -> None:
    step = f"mkdir {tmp_path}/lock && sleep 0.1 && rmdir {tmp_path}/lock"
    job = f"  a:\n    runs-on: x\n    strategy: {{max-parallel: 1, matrix: {{n: [1, 2, 3, 4]}}}}\n    steps: [{{run: '{step}'}}]\n"
    assert run(repository({".github/workflows/ci.yml": HEAD + job}), "-j", "4", code=0)["status"] == "passed"


def test_called_workflows_get_inputs_and_secrets_and_give_outputs(repository: MakeRepository) -> None:
    called = """
on:
  workflow_call:
    inputs:
      who: {type: string, required: true}
      count: {type: number, default: 2}
      loud: {type: boolean, default: false}
    secrets: {key: {required: true}}
    outputs:
      said: {value: "${{ jobs.say.outputs.said }}"}
jobs:
  say:
    runs-on: x
    outputs: {said: "${{ steps.s.outputs.said }}"}
    steps:
      - id: s
        run: |
          echo "said=hello ${{ inputs.who }} ${{ inputs.count + 0 == 2 }} ${{ inputs.loud }}" >> $GITHUB_OUTPUT
          test -n "${{ secrets.key }}" && test -z "${{ secrets.OTHER }}"
  after:
    needs: say
    runs-on: x
    steps: [{run: echo after}]
"""
    caller = (
        HEAD
        + """
  first:
    runs-on: x
    outputs: {name: "${{ steps.n.outputs.name }}"}
    steps: [{id: n, run: echo name=world >> $GITHUB_OUTPUT}]
  call:
    needs: first
    strategy: {matrix: {loud: [true, false]}}
    uses: ./.github/workflows/called.yml
    with: {who: "${{ needs.first.outputs.name }}", loud: "${{ matrix.loud }}"}
    secrets: {key: "${{ secrets.TOP }}"}
  skipped:
    if: false
    uses: ./.github/workflows/called.yml
    with: {who: nobody}
    secrets: inherit
  last:
    needs: [call, skipped]
    if: ${{ !cancelled() }}
    runs-on: x
    steps: [{run: 'echo "got ${{ needs.call.outputs.said }} ${{ needs.call.result }} ${{ needs.skipped.result }}"'}]
"""
    ).replace("count + 0", "count")
    files = {".github/workflows/ci.yml": caller, ".github/workflows/called.yml": called.replace("inputs.count + 0", "inputs.count")}
    told = run(repository(files), "--workflow", "ci.yml", "--secret", "TOP=a-top-secret", "--secret", "OTHER=another-one", code=0)
    assert "call (true) / say" in told["jobs"]
    assert told["jobs"]["call (false) / after"]["status"] == "passed"
    assert re.search(r"got hello world true (true|false) success skipped", told["logs"]["last"])


def test_composite_and_javascript_actions(repository: MakeRepository) -> None:
    composite = """
name: c
inputs:
  who: {default: "${{ github.actor }}"}
outputs:
  said: {value: "${{ steps.inner.outputs.x }}"}
runs:
  using: composite
  steps:
    - id: inner
      shell: bash
      run: echo "x=${{ inputs.who }} $OUTER" >> $GITHUB_OUTPUT; ls "$GITHUB_ACTION_PATH"
    - shell: bash
      run: echo "FROM_INSIDE=1" >> $GITHUB_ENV
"""
    files = {
        **one_job(
            """
- uses: actions/checkout@v4
- id: c
  uses: ./actions/c
  with: {who: somebody}
  env: {OUTER: outer}
- run: 'echo "said ${{ steps.c.outputs.said }} $FROM_INSIDE [$OUTER]"'
- id: js
  uses: ./actions/js
  with: {what is it: a value}
- run: 'echo "js ${{ steps.js.outputs.answer }}"'
"""
        ),
        "actions/c/action.yml": composite,
        "actions/js/action.yml": "name: js\ninputs: {what is it: {required: true}}\nruns: {using: node20, main: main.js, post: post.js}\n",
        "actions/js/main.js": "const fs = require('fs'); fs.appendFileSync(process.env.GITHUB_OUTPUT, `answer=${process.env.INPUT_WHAT_IS_IT}\\n`);"
        "fs.appendFileSync(process.env.GITHUB_STATE, 'kept=state\\n');",
        "actions/js/post.js": "console.log('post has ' + process.env.STATE_kept)",
    }
    if shutil.which("node") is None:
        pytest.skip("there is no node on this machine: apt install nodejs")
    log = run(repository(files), "--actor", "ann", code=0)["logs"]["a"]
    assert "said somebody outer 1 []" in log
    assert "js a value" in log
    assert log.index("post has state") > log.index("js a value")


def test_remote_actions_come_from_the_mirror_and_a_moved_tag_is_refused(repository: MakeRepository, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror/owner/greet"
    mirror.mkdir(parents=True)
    (mirror / "action.yml").write_text("name: g\nruns: {using: composite, steps: [{shell: bash, run: echo greetings}]}\n")
    git(mirror, "init", "--quiet", "--initial-branch=main")
    git(mirror, "add", "--all")
    git(mirror, "commit", "--quiet", "--message", "one")
    git(mirror, "tag", "v1")
    folder = repository(one_job("- uses: owner/greet@v1\n"))
    env = {"TRUNKLINE_ACTIONS": str(tmp_path / "mirror")}
    assert "greetings" in run(folder, code=0, env=env)["logs"]["a"]

    command = [sys.executable, "-m", "trunkline", "actions"]
    whole = {**os.environ, **env}
    locked = subprocess.run([*command, "lock"], cwd=folder, env=whole, capture_output=True, text=True, check=True, timeout=60)
    assert "owner/greet@v1" in locked.stdout
    assert subprocess.run([*command, "check"], cwd=folder, env=whole, capture_output=True, check=False, timeout=60).returncode == 0
    (mirror / "action.yml").write_text("name: g\nruns: {using: composite, steps: [{shell: bash, run: echo evil}]}\n")
    git(mirror, "commit", "--quiet", "--all", "--message", "two")
    git(mirror, "tag", "--force", "v1")
    checked = subprocess.run([*command, "check"], cwd=folder, env=whole, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 1
    assert "owner/greet@v1 is commit" in checked.stdout
    told = run(folder, code=1, env=env)
    assert "was" in told["jobs"]["a"]["message"]
    assert "when it was pinned" in told["jobs"]["a"]["message"]
    missing = run(repository_at(tmp_path / "other", one_job("- uses: owner/nothing@v1\n")), code=1, env=env)
    assert "there is no action owner/nothing in" in missing["jobs"]["a"]["message"]


def repository_at(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_the_native_actions_of_files(repository: MakeRepository) -> None:
    files = {
        "a.txt": "a\n",
        ".github/workflows/ci.yml": HEAD
        + """
  make:
    runs-on: x
    steps:
      - uses: actions/checkout@v4
        with: {path: inner}
      - run: test -f inner/a.txt && mkdir -p dist/deep && echo 1 > dist/one.txt && echo 2 > dist/deep/two.txt && echo 3 > dist/.hidden
      - uses: actions/upload-artifact@v4
        with: {name: all, path: dist}
      - uses: actions/upload-artifact@v4
        with: {name: some-x, path: "dist/**/*.txt\\n!dist/one.txt"}
      - uses: actions/upload-artifact@v4
        with: {name: none, path: nothing/*, if-no-files-found: ignore}
      - uses: actions/cache@v4
        id: cache
        with: {path: "kept\\n~/at-home", key: "k-${{ hashFiles('inner/a.txt') }}-1", restore-keys: k-}
      - run: mkdir -p kept ~/at-home && echo cached > kept/file && echo home > ~/at-home/file
      - id: filter
        uses: dorny/paths-filter@v3
        with: {filters: "src: ['src/**']\\ntext: ['*.txt']"}
      - run: 'echo "filter ${{ steps.filter.outputs.src }} ${{ steps.filter.outputs.text }} ${{ steps.filter.outputs.changes }}"'
  use:
    needs: make
    runs-on: x
    steps:
      - uses: actions/download-artifact@v4
        with: {path: got}
      - run: cd got && find . -type f | sort | tr '\\n' ' '
      - uses: actions/download-artifact@v4
        with: {pattern: some-*, merge-multiple: true, path: merged}
      - run: cat merged/deep/two.txt
      - uses: actions/cache/restore@v4
        id: other
        with: {path: "kept\\n~/at-home", key: k-new, restore-keys: "k-\\n"}
      - run: 'cat kept/file ~/at-home/file && echo "hit [${{ steps.other.outputs.cache-hit }}]"'
      - uses: actions/download-artifact@v4
        continue-on-error: true
        with: {name: missing}
  green:
    needs: [make, use]
    if: always()
    runs-on: x
    steps:
      - uses: re-actors/alls-green@release/v1
        with: {jobs: '${{ toJSON(needs) }}'}
  red:
    needs: [make]
    if: always()
    runs-on: x
    continue-on-error: true
    steps:
      - uses: re-actors/alls-green@release/v1
        with: {jobs: '{"x": {"result": "skipped"}}'}
""",
    }
    told = run(repository(files), "--changed", "src/new.py", "--changed", "other.md", code=0)
    assert 'filter true false ["src"]' in told["logs"]["make"]
    use = told["logs"]["use"]
    assert "./all/deep/two.txt ./all/one.txt ./some-x/two.txt" in use or "./all/deep/two.txt ./all/one.txt ./some-x/deep/two.txt" in use
    assert "cached\nhome\nhit [false]" in use
    assert "the run has no artifact 'missing'" in use
    assert told["jobs"]["red"]["status"] == "failed"
    assert told["jobs"]["red"]["allowed_to_fail"] is True
    assert "not all jobs have passed: x (skipped)" in told["jobs"]["red"]["message"]


def test_events_workflows_and_filters(repository: MakeRepository, tmp_path: Path) -> None:
    files = {
        ".github/workflows/ci.yml": "name: The CI\non: {push: {branches: [main], paths-ignore: ['docs/**']}, pull_request: {types: [opened]}}\n"
        "jobs: {a: {runs-on: x, steps: [{run: 'echo \"${{ github.event_name }} ${{ github.ref }} ${{ github.head_ref }} ${{ github.event.pull_request.title }}\"'}]}}\n",
        ".github/workflows/rel.yml": "on: {release: , push: {tags: ['v*', '!v0*']}}\njobs: {r: {runs-on: x, steps: [{run: 'echo \"${{ github.ref_type }} ${{ github.ref_name }}\"'}]}}\n",
        ".github/workflows/hand.yml": "on: {workflow_dispatch: {inputs: {n: {type: number, required: true}}}}\njobs: {h: {runs-on: x, steps: [{run: 'echo $((${{ inputs.n }} + 1))'}]}}\n",
        "event.json": json.dumps(
            {
                "action": "opened",
                "number": 7,
                "pull_request": {"number": 7, "title": "Better", "head": {"ref": "topic"}, "base": {"ref": "main"}},
            }
        ),
    }
    folder = repository(files)
    assert "push refs/heads/main" in run(folder, code=0)["logs"]["a"]
    assert "nothing to run" in run(folder, "--changed", "docs/a.md")["said"]
    assert "tag v1.0" in run(folder, "--tag", "v1.0", code=0)["logs"]["r"]
    assert "'!v0*'" not in run(folder, "--tag", "v0.1")["said"]
    assert run(folder, "--tag", "v0.1")["jobs"] == {}
    told = run(folder, "--event", str(folder / "event.json"), code=0)
    assert "pull_request refs/pull/7/merge topic Better" in told["logs"]["a"]
    (tmp_path / "closed.json").write_text((folder / "event.json").read_text().replace("opened", "closed"))
    assert "types does not name closed" in run(folder, "--event", str(tmp_path / "closed.json"))["said"]
    assert "42" in run(folder, "--event", "workflow_dispatch", "-e", "n=41", code=0)["logs"]["h"]
    missing = run(folder, "--event", "workflow_dispatch")
    assert (missing["code"], "the input 'n' must be given" in missing["said"]) == (2, True)
    assert run(folder, "--workflow", "The CI", code=0)["jobs"].keys() == {"a"}
    assert (
        "ci.yml, hand.yml, rel.yml" in run(folder, "--workflow", "nope")["said"]
        or "no workflow" in run(folder, "--workflow", "nope")["said"]
    )
    assert (
        "no event 'pul_request'" in run(folder, "--event", "pul_request")["said"]
        or "pull_request" in run(folder, "--event", "pul_request")["said"]
    )


def test_a_background_process_lives_until_the_job_ends(repository: MakeRepository) -> None:
    steps = """
- run: |
    sleep 4711 &
    echo $! > pid
- run: kill -0 $(cat pid) && cp pid "$RUNNER_TEMP/../pid-seen" ; cat pid > /dev/null; echo "pid $(cat pid)"
"""
    log = run(repository(one_job(steps)), code=0)["logs"]["a"]
    pid = re.search(r"\npid (\d+)", log)
    assert pid is not None
    assert not Path(f"/proc/{pid[1]}/cmdline").exists() or b"4711" not in Path(f"/proc/{pid[1]}/cmdline").read_bytes()


def test_a_step_and_a_job_that_run_too_long(repository: MakeRepository) -> None:
    steps = """
- timeout-minutes: 0.005
  continue-on-error: true
  run: sleep 30
- run: sleep 30
"""
    told = run(repository(one_job(steps, "    timeout-minutes: 0.02\n")), code=1)
    assert told["jobs"]["a"]["reason"] == "job_execution_timeout"
    assert "it ran longer than 0.005 minutes" in told["logs"]["a"]


def test_what_can_t_run_here_says_so(repository: MakeRepository) -> None:
    files = {
        ".github/workflows/ci.yml": HEAD
        + """
  box: {runs-on: x, container: node:20, steps: [{run: 'true'}]}
  python: {runs-on: x, container: "python:3.11", steps: [{run: python --version}]}
  docker: {runs-on: x, steps: [{uses: 'docker://alpine:3'}]}
  many:
    runs-on: x
    strategy: {matrix: {a: "${{ fromJSON('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]') }}", b: "${{ fromJSON('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]') }}"}}
    steps: [{run: 'true'}]
""",
    }
    folder = repository(files)
    assert "makes 272 jobs" in run(folder)["said"]
    text = files[".github/workflows/ci.yml"]
    (folder / ".github/workflows/ci.yml").write_text(text[: text.index("  many:")])
    told = run(folder, code=1)
    assert statuses(told) == {"box": "failed", "python": "passed", "docker": "failed"}
    assert "needs containers" in told["jobs"]["box"]["message"]
    assert "alpine:3 needs a container" in told["jobs"]["docker"]["message"]
    assert "Python 3.11" in told["logs"]["python"]


def test_why_and_plan_know_workflows(repository: MakeRepository) -> None:
    text = (
        HEAD
        + "  a: {name: Tests, runs-on: x, strategy: {matrix: {n: [1, 2]}}, steps: [{run: 'true'}]}\n  b: {needs: a, if: false, runs-on: x, steps: [{run: 'true'}]}\n"
    )
    folder = repository({".github/workflows/ci.yml": text})
    assert run(folder, code=0)["jobs"].keys() == {"Tests (1)", "Tests (2)", "b"}

    def said(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "trunkline", *words, "-C", str(folder)], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    assert "a is in this run: it needs no other job" in said("why")
    assert "it became 2 jobs: Tests (1) (passed), Tests (2) (passed)" in said("why", "a")
    assert "Tests (1) is in this run" in said("why", "Tests (1)")
    assert "it was skipped: its condition does not hold: false" in said("why", "b")
    assert "push of branch main: 3 jobs" in said("plan")


def test_legs_for_other_systems_are_skipped_and_what_comes_after_goes_on(repository: MakeRepository) -> None:
    jobs = """
  test:
    runs-on: ${{ matrix.os }}
    strategy: {matrix: {os: [ubuntu-latest, windows-latest, macos-14]}}
    steps: [{run: 'true'}]
  after: {needs: test, runs-on: x, steps: [{run: 'echo "${{ needs.test.result }}"'}]}
  make: {runs-on: x, outputs: {os: windows-2022}, steps: [{run: 'true'}]}
  late:
    needs: make
    runs-on: ${{ matrix.os }}
    strategy: {matrix: {os: ["${{ needs.make.outputs.os }}"]}}
    steps: [{run: 'true'}]
  later: {needs: late, runs-on: x, steps: [{run: 'true'}]}
  last: {needs: later, if: always(), runs-on: x, steps: [{run: 'echo "${{ needs.later.result }}"'}]}
"""
    told = run(repository({".github/workflows/ci.yml": HEAD + jobs}), code=0)
    assert statuses(told) == {
        "test (ubuntu-latest)": "passed", "test (windows-latest)": "skipped", "test (macos-14)": "skipped", "after": "passed", "make": "passed",
        "late (windows-2022)": "skipped", "later": "skipped", "last": "passed",
    }  # fmt: skip
    assert "it wants windows-latest" in told["jobs"]["test (windows-latest)"]["message"]
    assert "\nsuccess" in told["logs"]["after"]
    assert "\nskipped" in told["logs"]["last"]


def test_a_failure_far_back_is_seen_and_a_skipped_job_passes_it_on(repository: MakeRepository) -> None:
    jobs = """
  a: {runs-on: x, steps: [{run: exit 1}]}
  b: {needs: a, runs-on: x, steps: [{run: 'true'}]}
  c: {needs: b, runs-on: x, if: failure(), steps: [{run: 'echo "seen ${{ needs.b.result }}"'}]}
  d: {needs: [a, b], runs-on: x, if: success() || failure(), steps: [{run: 'true'}]}
  soft: {runs-on: x, continue-on-error: true, steps: [{run: exit 1}]}
  e: {needs: soft, runs-on: x, steps: [{run: 'echo "soft ${{ needs.soft.result }}"'}]}
"""
    told = run(repository({".github/workflows/ci.yml": HEAD + jobs}), code=1)
    assert statuses(told) == {"a": "failed", "b": "skipped", "c": "passed", "d": "passed", "soft": "failed", "e": "passed"}
    assert "seen skipped" in told["logs"]["c"]
    assert "soft success" in told["logs"]["e"]
    assert told["jobs"]["b"]["message"] == "an earlier job failed"


def test_a_secret_is_hidden_wherever_it_may_be_repeated(repository: MakeRepository) -> None:
    steps = """
- name: Say ${{ secrets.KEY }}
  run: |
    echo "it is ${{ secrets.KEY }}"
    echo "::error title=${{ secrets.KEY }}::broken by ${{ secrets.KEY }}"
    echo "# ${{ secrets.KEY }}" >> $GITHUB_STEP_SUMMARY
    echo "${{ secrets.KEY }}" > kept.txt
- name: Fails with ${{ secrets.KEY }}
  run: exit 1
"""
    told = run(repository(one_job(steps)), "--secret", "KEY=very-secret-words", code=1)
    job = told["jobs"]["a"]
    assert (
        "very-secret-words" not in Path(job["log"]).read_text() + Path(job["log"] + ".notes").read_text() + json.dumps(job) + told["said"]
    )
    assert job["message"] == "Fails with [MASKED]: exit code 1"


def test_the_name_of_a_step_and_old_commands_where_they_are_allowed(repository: MakeRepository) -> None:
    steps = """
- run: echo "::set-env name=OLD::works"; echo "::add-path::/somewhere/bin"; echo "named $GITHUB_ACTION"
- run: 'echo "OLD $OLD ${PATH%%:*} $GITHUB_ACTION"'
- id: mine
  run: 'echo "named ${{ github.action }}"'
"""
    log = run(repository(one_job(steps, "    env: {ACTIONS_ALLOW_UNSECURE_COMMANDS: true}\n")), code=0)["logs"]["a"]
    assert "named __run\n" in log
    assert "OLD works /somewhere/bin __run_2" in log
    assert "named mine" in log
