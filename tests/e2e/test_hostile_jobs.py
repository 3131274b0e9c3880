"""What a job must not be able to do to the server, its machine and other projects: one test for each claim of docs/explanation/threat-model.md."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, commit, project

from trunkline.adapters.executors.host import find_bubblewrap

pytestmark = pytest.mark.skipif(
    find_bubblewrap() is None, reason="bubblewrap can't make sandboxes here: allow user namespaces, or apt install bubblewrap"
)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of the machine that no job may read or write."""
    file = tmp_path / "precious"
    file.write_text("precious content")
    yield file
    assert file.read_text() == "precious content"


def _log(server: Server, tmp_path: Path, pipeline: str, job: str = "attack") -> str:
    server.push(project(tmp_path / "p", pipeline), ref="topic")
    run = server.until_ended(1)
    log = server.trace(run["jobs"][job]["id"])
    assert run["status"] == "passed", log
    return log


def test_it_sees_neither_the_servers_data_nor_the_machines_secrets(
    server: Server, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "s3cr3t")
    server.start()
    server.push(project(tmp_path / "q", "use: {cache: {key: k, paths: [c]}, script: [echo other > c]}"), "team/other")
    server.until_ended(1)
    home = os.path.expanduser("~")
    files = [
        *(
            f"{server.data}/{name}"
            for name in ("state.sqlite", "caches", "artifacts", "traces", "environments", "repositories/team/other.git/HEAD")
        ),
        *(f"{home}/{name}" for name in (".ssh", ".gitconfig", ".netrc", ".bashrc", ".profile")),
        *("/run/docker.sock", "/var/run/docker.sock", "/etc/ssl/private/x", str(victim)),
    ]
    pipeline = f"""
    attack:
      script:
        - for f in {" ".join(files)}; do if test -e $f; then echo "SEEN $f"; fi; done
        - if cat /etc/shadow; then echo SEEN; fi
        - if cat /proc/*/environ | tr '\\0' '\\n' | grep -a s3cr3t; then echo SEEN; fi
        - ls -A {server.data} {server.data}/downloads
    """
    server.push(project(tmp_path / "p", pipeline), ref="topic")
    run = server.until_ended(2)
    log = server.trace(run["jobs"]["attack"]["id"])
    assert run["status"] == "passed", log
    assert "\nSEEN" not in log
    assert len(log.split("/downloads:\n")[1].split("section_end")[0].split()) == 1, "its own downloads only"


def test_it_can_not_take_the_walls_down(server: Server, tmp_path: Path) -> None:
    log = _log(
        server,
        tmp_path,
        f"""
        attack:
          script:
            - if mount -o remount,rw,bind /; then echo DONE; fi
            - if umount {server.data}; then echo DONE; fi
            - if umount /root; then echo DONE; fi
            - if mknod disk b 8 0; then echo DONE; fi
            - if touch /usr/hostile /etc/hostile; then echo DONE; fi
            - if mv ../tmp ../elsewhere; then echo DONE; fi
            - if unshare --mount mount -o remount,rw,bind /; then echo DONE; fi
            - if test $(id -u) = 0; then chown 1000 .gitlab-ci.yml && echo root may still chown; fi
        """,
    )
    assert "\nDONE" not in log
    assert os.geteuid() != 0 or "\nroot may still chown" in log


def test_links_in_place_of_its_folders_and_scripts_lead_nowhere(server: Server, tmp_path: Path, victim: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    log = _log(
        server,
        tmp_path,
        f"""
        attack:
          script:
            - ln -s {victim} ../scripts/2 && echo DONE || true
            - ln -s {victim} ../script-2 || true
            - rmdir ../home ../env && echo DONE || true
            - ln -sfn {tmp_path}/folder ../tmp/out
            - ln -s {victim} report.env
            - ln -s {tmp_path}/folder dist
            - ln -s {tmp_path}/folder cached
          after_script: [echo the second script]
          artifacts: {{paths: [dist], reports: {{dotenv: report.env}}}}
          cache: {{key: k, paths: [cached]}}
        """,
    )
    assert "\nDONE" not in log
    assert "the second script" in log
    assert "precious content" not in log
    assert (tmp_path / "folder" / "kept").read_text() == "kept"


def test_a_step_can_not_have_the_server_read_or_write_through_links(server: Server, tmp_path: Path, victim: Path) -> None:
    folder = project(tmp_path / "p", "")
    (folder / ".gitlab-ci.yml").unlink()
    (folder / ".github" / "workflows").mkdir(parents=True)
    workflow = f"""
    on: push
    jobs:
      attack:
        runs-on: ubuntu-latest
        steps:
          - id: one
            run: ln -sf {victim} $GITHUB_STEP_SUMMARY; ln -sf {victim} $GITHUB_OUTPUT
          - run: |
              ln -s {victim} "$(dirname "$(dirname "$GITHUB_ENV")")/3.sh"; ln -s {victim} "$(dirname "$(dirname "$GITHUB_ENV")")/3"; true
          - run: echo third
    """
    (folder / ".github" / "workflows" / "w.yml").write_text(workflow)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A workflow")
    server.push(folder)
    run = server.until_ended(1)
    job = run["jobs"]["attack"]["id"]
    assert "precious content" not in server.trace(job)
    assert b"precious content" not in server.request("GET", f"/jobs/{job}")[1]


def test_a_pipeline_can_not_say_that_its_ref_is_protected_or_its_project_another(server: Server, tmp_path: Path) -> None:
    honest = "use: {cache: {key: k, paths: [c]}, script: [cat c || true, echo good > c]}"
    folder = project(tmp_path / "p", honest)
    for number, name in enumerate(("team/other", "team/mine"), 1):
        server.push(folder, name)
        server.until_ended(number)

    hostile = """
    variables: {CI_COMMIT_REF_PROTECTED: "true", CI_PROJECT_PATH: team/other, CI_PROJECT_ID: "77", TRUNKLINE_LOCAL: "1", GITLAB_USER_EMAIL: boss@example.com}
    use:
      id_tokens: {PROOF: {aud: vault}}
      cache: {key: k, paths: [c]}
      script:
        - cat c && echo SEEN || true
        - echo evil > c
        - python3 -c "import base64, os; b = os.environ['PROOF'].split('.')[1]; print(base64.urlsafe_b64decode(b + '==').decode(), file=open('claims', 'w'))"
      artifacts: {paths: [claims]}
    """
    commit(folder, hostile)
    server.push(folder, "team/mine", ref="topic")
    run = server.until_ended(3)
    log = server.trace(run["jobs"]["use"]["id"])
    assert run["status"] == "passed", log
    assert "\nSEEN" not in log
    claims = json.loads(server.request("GET", f"/api/v1/jobs/{run['jobs']['use']['id']}/artifacts/claims")[1])
    assert (claims["project_path"], claims["ref_protected"]) == ("team/mine", "false")
    assert claims["project_id"] != "77"
    assert claims["user_email"] != "boss@example.com"

    commit(folder, honest)
    for other in ("team/other", "team/mine"):
        server.push(folder, other)
        later = max(server.runs(), key=lambda r: int(r["id"]))
        log = server.trace(server.until_ended(int(later["id"]))["jobs"]["use"]["id"])
        assert "\nevil" not in log


def test_an_environment_that_a_topic_has_built_is_not_lent_to_main(server: Server, tmp_path: Path) -> None:
    pipeline = "use: {script: [pip install ./lib, python -c 'import lib; print(lib.WORD)']}"
    folder = project(tmp_path / "p", pipeline)
    (folder / "lib").mkdir()
    (folder / "lib" / "pyproject.toml").write_text('[project]\nname = "lib"\nversion = "1"\n[build-system]\nrequires = ["setuptools"]\n')
    (folder / "lib" / "lib.py").write_text('WORD = "hello"\n')
    said = []
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A library")
    (folder / ".gitlab-ci.yml").write_text("first: {script: [echo main is the default branch]}")
    git(folder, "commit", "--quiet", "--all", "--message", "First")
    server.push(folder)
    for number, ref in enumerate(("topic", "topic", "main", "other"), 2):
        commit(folder, pipeline)
        server.push(folder, ref=ref)
        job = server.until_ended(number)["jobs"]["use"]
        log = server.trace(job["id"])
        assert job["status"] == "passed", log
        said.append(next(line.split("environment ")[1].split(",")[0] for line in log.splitlines() if line.startswith("environment ")))
    assert ["reused" in line for line in said] == [False, True, False, True]
    assert said[3].split()[0] == said[2].split()[0], "others may use what main has built"
