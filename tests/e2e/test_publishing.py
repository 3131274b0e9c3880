"""What jobs publish: releases of tags, sites; and who may have artifacts."""

from pathlib import Path

from tests.conftest import git
from tests.e2e.conftest import Server, project


def test_a_job_releases_a_tag_whose_run_starts(server: Server, tmp_path: Path) -> None:
    pipeline = """
    variables: {VERSION: "1.2"}
    publish:
      rules: [{if: $CI_COMMIT_BRANCH}]
      script: ['printf "First line\\nsecond\\n" > notes.md']
      artifacts: {paths: [notes.md]}
      release:
        tag_name: v$VERSION
        tag_message: Version $VERSION
        name: Release $VERSION
        description: ./notes.md
        assets: {links: [{name: wheel, url: "https://example.com/$VERSION.whl", link_type: package}]}
    on_tag:
      rules: [{if: $CI_COMMIT_TAG}]
      script: ['echo "tag $CI_COMMIT_TAG: $CI_COMMIT_TAG_MESSAGE"']
    """
    folder = project(tmp_path / "p", pipeline)
    server.push(folder)
    assert server.until_ended(1)["status"] == "passed"
    tagged = server.until_ended(2)
    assert "tag v1.2: Version 1.2" in server.trace(tagged["jobs"]["on_tag"]["id"])
    (release,) = server.get("/api/v1/projects/team/project/releases")["releases"]
    assert (release["tag"], release["name"], release["description"]) == ("v1.2", "Release 1.2", "First line\nsecond\n")
    assert release["links"] == [{"name": "wheel", "url": "https://example.com/1.2.whl", "kind": "package"}]
    assert "Release 1.2" in server.request("GET", "/team/project/releases")[1].decode()
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "again")
    server.push(folder)
    job = server.until_ended(3)["jobs"]["publish"]
    assert (job["status"], job["message"]) == ("failed", "there is a release of v1.2 already")


def test_a_site_is_served_sandboxed_to_those_who_have_a_ticket(server: Server, tmp_path: Path) -> None:
    pipeline = """
    pages: {script: ['mkdir -p public/deep && echo "<h1>Site</h1>" > public/index.html && echo "x{}" > public/a.css && echo deep > public/deep/index.html && ln -s /etc/passwd public/leak && echo "nothing here" > public/404.html']}
    preview:
      script: [mkdir out && echo preview > out/index.html]
      pages: {publish: out, path_prefix: "mr-$CI_COMMIT_REF_NAME", expire_in: 1 day}
    """
    server.push(project(tmp_path / "p", pipeline))
    run = server.until_ended(1)
    assert run["status"] == "passed", run
    status, _, headers = server.request("GET", "/pages/team/project")
    assert status == 302
    address = headers["location"]
    status, body, headers = server.request("GET", address)
    assert (status, body) == (200, b"<h1>Site</h1>\n")
    assert headers["content-security-policy"].startswith("sandbox")
    assert server.request("GET", address + "a.css")[2]["content-type"].startswith("text/css")
    assert server.request("GET", address + "deep/")[1] == b"deep\n"
    assert server.request("GET", address + "deep")[0] == 302
    for away in ("leak", "../../state.sqlite", "nosuch"):
        assert server.request("GET", address + away)[:2] == (404, b"nothing here\n"), away
    assert server.request("GET", address.replace("~", "~f"))[0] == 403
    assert server.request("GET", "/pages/team/other")[0] == 400
    preview = server.request("GET", "/pages/team/project/mr-main/")[2]["location"]
    assert server.request("GET", preview)[1] == b"preview\n"


def test_the_newest_artifacts_of_a_ref_have_an_address_and_access_is_kept(server: Server, tmp_path: Path) -> None:
    pipeline = """
    stages: [make, use]
    open: {stage: make, script: [echo $CI_PIPELINE_IID > n.txt], artifacts: {paths: [n.txt]}}
    closed: {stage: make, script: [echo secret > s.txt], artifacts: {paths: [s.txt], access: none}}
    use: {stage: use, script: [cat s.txt]}
    """
    folder = project(tmp_path / "p", pipeline)
    server.push(folder)
    run = server.until_ended(1)
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "again")
    server.push(folder)
    server.until_ended(2)
    assert server.request("GET", "/api/v1/projects/team/project/artifacts/main/raw/n.txt?job=open")[1] == b"2\n"
    address = server.request("GET", "/team/project/-/jobs/artifacts/main/raw/n.txt?job=open")[2]["location"]
    assert server.request("GET", address)[1] == b"2\n"
    assert server.request("GET", "/api/v1/projects/team/project/artifacts/main/download?job=open")[1][:2] == b"PK"
    assert "secret" in server.trace(run["jobs"]["use"]["id"])
    closed = run["jobs"]["closed"]["id"]
    for path in ("", ".zip", "/s.txt"):
        assert server.request("GET", f"/api/v1/jobs/{closed}/artifacts{path}")[0] == 403
    assert server.request("GET", f"/jobs/{closed}/artifacts")[0] == 403


def test_protected_refs_have_caches_of_their_own_unless_shared(server: Server, tmp_path: Path) -> None:
    pipeline = """
    apart: {cache: {key: a, paths: [c]}, script: [cat c || true, echo $CI_COMMIT_REF_NAME > c]}
    shared: {cache: {key: b, paths: [d], unprotect: true}, script: [cat d || true, echo $CI_COMMIT_REF_NAME > d]}
    """
    folder = project(tmp_path / "p", pipeline)
    server.push(folder)
    server.until_ended(1)
    server.push(folder, ref="feature")
    jobs = server.until_ended(2)["jobs"]
    assert "none yet" in server.trace(jobs["apart"]["id"])
    assert "\nmain\n" in server.trace(jobs["shared"]["id"])
    server.push(folder, "team/other", ref="feature")
    assert "none yet" in server.trace(server.until_ended(3)["jobs"]["shared"]["id"])


def test_gitlabs_addresses_for_scripts(server: Server, tmp_path: Path) -> None:
    pipeline = """
    make: {script: [echo made > m.txt], artifacts: {paths: [m.txt]}}
    ask:
      script:
        - 'curl -s -H "JOB-TOKEN: $CI_JOB_TOKEN" "$CI_API_V4_URL/job"'
        - 'curl -s -H "JOB-TOKEN: $CI_JOB_TOKEN" -d tag_name=v9 -d name=Nine "$CI_API_V4_URL/projects/$CI_PROJECT_ID/releases"'
      needs: [make]
    """
    server.push(project(tmp_path / "p", pipeline))
    run = server.until_ended(1)
    log = server.trace(run["jobs"]["ask"]["id"])
    assert '"name":"ask"' in log
    assert '"tag_name":"v9"' in log
    api = "/api/v4/projects/team%2Fproject"
    assert server.request("GET", f"{api}/jobs/artifacts/main/raw/m.txt?job=make")[1] == b"made\n"
    assert server.request("GET", f"{api}/jobs/{run['jobs']['make']['id']}/artifacts/m.txt")[1] == b"made\n"
    assert server.request("GET", f"{api}/jobs/artifacts/main/download?job=make")[2]["location"].endswith("artifacts.zip")
    foreign = {"Origin": "https://evil.test", "Content-Type": "application/x-www-form-urlencoded"}
    assert server.request("POST", f"{api}/releases", b"tag_name=v10", foreign)[0] == 403
