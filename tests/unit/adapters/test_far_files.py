"""Pipeline files that lie elsewhere: by HTTP with care, in other projects by git, and the templates of our own."""

import base64
import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.conftest import git

from trunkline.adapters.dialects.gitlab.templates import TEMPLATES
from trunkline.adapters.far_files import remote
from trunkline.adapters.far_files.actions import ActionSource
from trunkline.adapters.far_files.git import Remotes, Repositories, sibling
from trunkline.adapters.far_files.remote import fetch
from trunkline.model.errors import ConfigError, OutsideError
from trunkline.pipeline.compile import Compiled, compile_pipeline
from trunkline.ports.files import FarFiles
from trunkline.testing.builders import Files
from trunkline.wiring.builtin import dialect

FAR = "far: {script: [echo far]}\n"


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/metadata")
            self.end_headers()
            return
        if self.path == "/round":
            self.send_response(302)
            self.send_header("Location", "/round")
            self.end_headers()
            return
        self.send_response(200 if self.path != "/none" else 404)
        self.end_headers()
        if self.path == "/large":
            with contextlib.suppress(OSError):  # who asked has hung up
                self.wfile.write(b"# " + b"x" * (2 << 20))
        elif self.path == "/slow":
            with contextlib.suppress(OSError):
                for _ in range(50):
                    self.wfile.write(b"#")
                    time.sleep(0.05)
        else:
            self.wfile.write(FAR.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_text_is_fetched_from_a_host_that_is_allowed(site: str) -> None:
    assert fetch(f"{site}/file.yml", ["127.0.0.1"]) == FAR


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x",
        "http://localhost:1/x",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x",
        "http://[::1]:1/x",
        "http://0.0.0.0:1/x",
    ],
)
def test_addresses_of_this_machine_and_of_private_networks_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="an address of this machine or of a private network"):
        fetch(url)


def test_a_redirect_leads_to_nothing_that_could_not_be_asked_itself(site: str) -> None:
    with pytest.raises(ConfigError, match=r"localhost is .*private network"):
        fetch(f"{site}/away", ["127.0.0.1"])


@pytest.mark.parametrize(
    ("path", "said"), [("/large", "more than 1 MB"), ("/none", "answered 404"), ("/round", "302"), ("/slow", "took longer than 0.3 s")]
)
def test_what_is_huge_missing_slow_or_goes_round_ends_with_a_reason(
    site: str, path: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SECONDS", 0.3)

    with pytest.raises((ConfigError, OutsideError), match=said):
        fetch(site + path, ["127.0.0.1"])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x", "gopher://x", "http://", "http://[bad/"])
def test_only_http_is_spoken(url: str) -> None:
    with pytest.raises((ConfigError, OutsideError)):
        fetch(url)


def compiled(main: str, far: FarFiles | None, **files: str) -> Compiled:
    here = Files()
    here.files[".gitlab-ci.yml"] = main
    here.files.update(files)
    return compile_pipeline(dialect("gitlab"), here, {}, "", far)


def names(found: Compiled) -> list[str]:
    assert found.pipeline is not None, found.diagnostics
    return [j.name for j in found.pipeline.jobs]


class _Here:
    """Far files without a network."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.library = Files()
        self.library.files |= {"ci/main.yml": "include: /ci/more.yml\na: {script: x}\n", "ci/more.yml": "b: {script: x}\n"}
        component = "spec: {component: [name, version], inputs: {job: {default: scan}}}\n---\n$[[ inputs.job ]]: {script: 'x $[[ component.name ]] $[[ component.version ]]'}\n"
        self.library.files |= {"templates/check.yml": component, "templates/deep/template.yml": "deep: {script: x}\n"}

    def remote(self, url: str) -> str:
        return self.texts[url.rpartition("/")[2]]

    def tags(self, path: str) -> tuple[str, ...]:
        return ("1.0.0", "1.2.0", "1.10.1", "2.0.0-rc1", "v1") if path == "group/library" else ()

    def project(self, path: str, ref: str) -> Files:
        if path == "group/library" and ref in ("1.2.0", "1.10.1"):
            return self.library
        if (path, ref) != ("group/library", "v1"):
            raise ConfigError(f"there is no {path}@{ref}", "push it")
        return self.library


def test_files_of_another_project_include_what_lies_beside_them() -> None:
    found = compiled("include: [{project: group/library, ref: v1, file: [/ci/main.yml]}]\nc: {script: x}", _Here())

    assert sorted(names(found)) == ["a", "b", "c"]
    assert found.went_far
    assert found.pipeline is not None
    assert "group/library@v1:ci/more.yml" in found.pipeline.files


def test_what_can_not_be_had_is_named_where_it_was_asked_for() -> None:
    found = compiled(
        "include:\n  - {project: group/other, ref: v1, file: x.yml}\n  - {project: group/library, ref: v1, file: y.yml}\nc: {script: x}",
        _Here(),
    )

    assert [(d.place.line, d.message) for d in found.errors] == [
        (2, "there is no group/other@v1"),
        (3, '"group/library@v1:y.yml" is included, but there is no such file'),
    ]


def test_a_remote_file_is_checked_against_its_integrity_and_has_no_local_files() -> None:
    digest = base64.b64encode(hashlib.sha256(FAR.encode()).digest()).decode()
    address = "https://example.com/far.yml"

    assert names(compiled(f"include: [{{remote: {address}, integrity: sha256-{digest}}}]", _Here(**{"far.yml": FAR}))) == ["far"]
    changed = compiled(f"include: [{{remote: {address}, integrity: sha256-{digest}}}]", _Here(**{"far.yml": FAR + "#"}))
    assert any("is not what it was" in d.message for d in changed.errors)
    astray = compiled(f"include: {address}", _Here(**{"far.yml": "include: x.yml\n" + FAR}))
    assert any("a file from elsewhere can't include local ones" in d.hint for d in astray.errors)


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_templates_are_pipelines(name: str) -> None:
    found = compiled(f"include: [{{template: {name}}}]\nmine: {{script: x}}", None)

    assert "mine" in names(found)
    assert not found.went_far


def test_a_template_that_is_not_here_is_named() -> None:
    assert (
        'there is no template "Pyton.gitlab-ci.yml"'
        in compiled("include: [{template: Pyton.gitlab-ci.yml}]\nm: {script: x}", None).errors[0].message
    )


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("git@gitlab.com:group/mine.git", "git@gitlab.com:other/lib.git"),
        ("https://gitlab.com/group/mine.git", "https://gitlab.com/other/lib.git"),
        ("ssh://git@host:2222/group/mine", "ssh://git@host:2222/other/lib.git"),
        ("/srv/git/mine.git", ""),
    ],
)
def test_another_project_lies_at_the_same_forge(url: str, found: str) -> None:
    assert sibling(url, "other/lib") == found


def test_a_revision_is_fetched_once_and_refs_can_not_be_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "forge" / "other" / "lib.git"
    library.mkdir(parents=True)
    git(library, "init", "--quiet", "--initial-branch", "main")
    (library / "ci.yml").write_text(FAR)
    git(library, "add", "--all")
    git(library, "commit", "--quiet", "--message", "First")
    mine = tmp_path / "mine"
    mine.mkdir()
    git(mine, "init", "--quiet")
    git(mine, "remote", "add", "origin", "https://forge.example/group/mine.git")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{tmp_path}/forge/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://forge.example/")
    far = Remotes(str(mine), str(tmp_path / "cache"))

    assert far.project("other/lib", "main").read("ci.yml") == FAR
    (library / "ci.yml").write_text("changed: {script: x}\n")
    git(library, "commit", "--quiet", "--all", "--message", "Second")
    assert far.project("other/lib", "main").read("ci.yml") == FAR, "asked a moment ago"
    with pytest.raises(OutsideError, match="has no 'nowhere'"):
        far.project("other/lib", "nowhere")
    for path, ref in (("other/lib", "--upload-pack=touch x"), ("-x", "main"), ("other/lib", "a:b")):
        with pytest.raises(ConfigError, match="can't be a project and its ref"):
            far.project(path, ref)


def test_a_server_reads_its_own_projects_and_asks_no_address_twice_in_a_moment(tmp_path: Path) -> None:
    far = Repositories(lambda path, ref: None)

    with pytest.raises(ConfigError, match="there is no project 'a/b'"):
        far.project("a/b", "")
    for _ in range(2):
        with pytest.raises(ConfigError, match="must not be asked"):
            far.remote("http://127.0.0.1:1/x.yml")
    assert len(far.fetched) == 1


@pytest.mark.parametrize(("version", "found"), [("1.2.0", "1.2.0"), ("1.2", "1.2.0"), ("1", "1.10.1"), ("~latest", "1.10.1"), ("v1", "v1")])
def test_a_component_is_found_at_the_version_that_is_meant(version: str, found: str) -> None:
    main = f"include: [{{component: $CI_SERVER_FQDN/group/library/check@{version}, inputs: {{job: mine}}}}]"
    pipeline = compiled(main, _Here()).pipeline

    assert pipeline is not None
    assert [(j.name, j.script) for j in pipeline.jobs] == [("mine", (f"x check {found}",))]


def test_a_component_may_have_a_folder_of_its_own() -> None:
    assert names(compiled("include: [{component: example.com/group/library/deep@1.2.0}]", _Here())) == ["deep"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("$CI_SERVER_FQDN/group/library/check@3", "no tag is a version 3"),
        ("$CI_SERVER_FQDN/group/library/nosuch@1.2.0", 'no file matches "nosuch"'),
        ("$CI_SERVER_FQDN/group/library/check", "is no component's address"),
        ("$CI_SERVER_FQDN/check@1", "is no component's address"),
    ],
)
def test_components_that_are_not_there(address: str, said: str) -> None:
    assert any(said in d.message for d in compiled(f"include: [{{component: {address}}}]\na: {{script: x}}", _Here()).errors)


def test_jobs_that_want_an_action_at_the_same_time_all_get_it(tmp_path: Path) -> None:
    origin = tmp_path / "mirror" / "owner" / "name"
    origin.mkdir(parents=True)
    for number in range(200):
        (origin / f"file{number}").write_text(f"content {number}\n" * 100)
    git(origin, "init", "--quiet", "--initial-branch=main")
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--message", "An action")
    source = ActionSource(str(tmp_path / "cache"), str(tmp_path / "mirror"))
    together = threading.Barrier(8)

    def fetched(_: int) -> tuple[str, int]:
        together.wait(30)
        folder = source.fetch("owner/name", "main")
        return folder, len(list(Path(folder).iterdir()))

    with ThreadPoolExecutor(8) as pool:
        ((folder, count),) = set(pool.map(fetched, range(8)))

    assert count == 200
    assert [p.name for p in Path(folder).parent.iterdir()] == [Path(folder).name]
