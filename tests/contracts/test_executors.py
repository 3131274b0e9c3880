"""Every executor against its contract."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.adapters.executors import network
from trunkline.adapters.executors.host import HostExecutor, Limits, Walls, find_bubblewrap
from trunkline.ports.executor import Order
from trunkline.testing.contracts.executor import ExecutorContract


class TestHost(ExecutorContract):
    """Plain processes."""

    @pytest.fixture
    def executor(self) -> HostExecutor:
        return HostExecutor()

    @pytest.mark.parametrize(
        ("limits", "script", "said"),
        [
            ({"memory": 200 << 20}, "python3 -c 'x = bytearray(400 << 20)'", "MemoryError"),
            ({"file_size": 1 << 20}, "head -c 2000000 /dev/zero > big; test $(stat -c %s big) = 1048576 && echo cut; exit 1", "cut"),
            ({"file_size": 1 << 20}, "ulimit -f unlimited", "ulimit"),
        ],
    )
    def test_a_limit_holds_and_a_job_can_not_take_it_back(
        self, workspace: str, limits: dict[str, int], script: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "ulimit" in script and os.geteuid() == 0:
            script = "ulimit -Hf | grep 1024 && echo ulimit; exit 1"  # root may raise what others can't

        code, out = self._run(HostExecutor(limits=Limits(**limits)), workspace, script)

        assert code != 0
        assert said in out


class _Churn:
    """Mounts that come and go, as containers make them; each is a chance for bubblewrap to fail."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stopping = folder, threading.Event()
        self.thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> None:
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "churn", str(self.folder)], check=True)
        subprocess.run(["mount", "--make-shared", str(self.folder)], check=True)
        self.thread.start()

    def _go_on(self) -> None:
        inner = [self.folder / str(n) for n in range(3)]
        while not self.stopping.is_set():
            for one in inner:
                one.mkdir(exist_ok=True)
                subprocess.run(["mount", "-t", "tmpfs", "churn", str(one)], check=True)
            for one in inner:
                subprocess.run(["umount", "--lazy", str(one)], check=True)  # a sandbox that is being made may hold it

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class TestHostInBubblewrap(ExecutorContract):
    """Processes that see little."""

    @pytest.fixture
    def executor(self) -> HostExecutor:
        bwrap = find_bubblewrap()
        if bwrap is None:
            pytest.skip("bubblewrap can't make sandboxes here: allow user namespaces, or apt install bubblewrap")
        return HostExecutor(Walls(bwrap))

    def test_the_rest_of_the_machine_is_read_only_and_other_programs_invisible(self, executor: HostExecutor, workspace: str) -> None:
        code, out = self._run(executor, workspace, "touch /usr/x 2>/dev/null && echo written; ls /proc | grep -c '^[0-9]*$'")

        assert code == 0
        assert "written" not in out
        assert int(out.split()[-1]) < 8

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount: run the tests as root")
    def test_mounts_that_come_and_go_keep_no_sandbox_from_being_made(self, executor: HostExecutor, workspace: str) -> None:
        with _Churn(Path(tempfile.mkdtemp(dir="/var/tmp")) / "mounts"):
            said = [self._run(executor, workspace, "echo once") for _ in range(50)]

        assert said == [(0, "once\n")] * 50

    @pytest.fixture
    def home(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A home folder outside of /tmp, which a sandbox has of its own."""
        folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
        for name in (".ssh/id_rsa", ".config/pip/pip.conf", ".local/bin/tool", "node/bin/node", "node/lib/its"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("content\n")
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{folder}/node/bin")
        yield folder
        shutil.rmtree(folder)

    def test_of_a_home_the_tools_and_pips_configuration_are_seen_and_no_more(
        self, executor: HostExecutor, home: Path, workspace: str
    ) -> None:
        mine = HostExecutor(executor.walls)

        _, out = self._run(mine, workspace, f"cd {home} && find . -type f | sort")

        assert out.split() == ["./.config/pip/pip.conf", "./.local/bin/tool", "./node/bin/node", "./node/lib/its"]

    def test_of_a_checkout_that_the_servers_data_lie_in_nothing_is_seen(self, executor: HostExecutor) -> None:
        checkout = Path(tempfile.mkdtemp(dir="/var/tmp"))
        checkout.chmod(0o755)
        workspace = checkout / "data" / "work" / "project"
        workspace.mkdir(parents=True)
        for name in ("pyproject.toml", "trunkline.toml", "src/its.py"):
            (checkout / name).parent.mkdir(exist_ok=True)
            (checkout / name).write_text("content\n")
        inside = HostExecutor(Walls(executor.walls.bubblewrap, (str(checkout / "data"),), own_users=executor.walls.own_users))

        code, out = self._run(
            inside, str(workspace), f"echo made > file; ls -A {checkout}; find {checkout} -name '*.toml' -o -name '*.py'; cat file"
        )
        made = (workspace / "file").read_text()
        shutil.rmtree(checkout)

        assert (code, out.split(), made) == (0, ["data", "made"], "made\n")

    def test_what_is_installed_below_tmp_is_seen_and_nothing_beside_it(
        self, executor: HostExecutor, workspace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(tempfile.mkdtemp(dir="/tmp"))
        for name in ("venv/bin/uv", "venv/lib/its", "beside"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("content\n")
        (folder / "venv").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}/venv/bin:{os.environ['PATH']}")

        _, out = self._run(HostExecutor(executor.walls), workspace, f"cd {folder} && find . -type f | sort; echo x > venv/bin/uv; ls -A")
        shutil.rmtree(folder)

        assert out.split()[:2] == ["./venv/bin/uv", "./venv/lib/its"]
        assert out.split()[-1] == "venv", out
        assert "ead-only" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give jobs users of their own: run the tests as root")
class TestHostWithUsers(TestHostInBubblewrap):
    """Processes that see little, and are somebody else."""

    @pytest.fixture
    def executor(self) -> HostExecutor:
        bwrap = find_bubblewrap()
        if bwrap is None:
            pytest.skip("bubblewrap can't make sandboxes here: allow user namespaces, or apt install bubblewrap")
        return HostExecutor(Walls(bwrap, own_users=True))

    def test_what_is_made_for_a_job_is_its_own_and_what_it_needs_can_be_reached(self, executor: HostExecutor, workspace: str) -> None:
        Path(workspace, "before").write_text("an earlier owner's")
        lines = "touch before new; id -un; stat -c %U . before new $HOME; echo x > /dev/stderr; python3 -c 'import multiprocessing as m; m.Lock()'"

        code, out = self._run(executor, workspace, lines)

        assert (code, out.split()) == (0, ["job", "job", "job", "job", "job", "x"])

    def test_what_a_script_says_is_heard_at_once_however_short(self, executor: HostExecutor, workspace: str) -> None:
        heard: list[float] = []
        with executor.open(Order("job", workspace)) as sandbox:
            sandbox.run("printf b; sleep 1.5", {"PATH": os.environ["PATH"]}, lambda _: heard.append(time.monotonic()))
            ended = time.monotonic()

        assert len(heard) == 1
        assert ended - heard[0] > 1, "before the script's end"

    def test_a_script_that_says_what_bubblewrap_would_say_is_run_once(self, executor: HostExecutor, workspace: str) -> None:
        assert self._run(executor, workspace, "echo ran >> log; echo 'bwrap: no'; exit 1") == (1, "bwrap: no\n")
        assert Path(workspace, "log").read_text() == "ran\n"

    def test_pips_configuration_that_only_root_may_read_is_lent(self, executor: HostExecutor, workspace: str, home: Path) -> None:
        (home / ".config/pip/pip.conf").chmod(0o600)
        mine = HostExecutor(executor.walls)
        out: list[bytes] = []
        with mine.open(Order("job", workspace)) as sandbox:
            sandbox.run("cat $PIP_CONFIG_FILE", sandbox.environment(), out.append)

        assert out == [b"content\n"]
        assert not any(Path(workspace).parent.rglob("pip.conf"))


class TestHostWithNetworks(TestHostInBubblewrap):
    """Processes that see little, on a network of their own."""

    @pytest.fixture
    def executor(self) -> HostExecutor:
        bwrap = find_bubblewrap()
        trouble = network.trouble(bwrap) if bwrap is not None else "bubblewrap can't make sandboxes here"
        if bwrap is None or trouble:
            pytest.skip(f"{trouble}: apt install bubblewrap slirp4netns")
        return HostExecutor(Walls(bwrap, own_users=os.geteuid() == 0, own_networks=True))

    def test_names_are_resolved_though_the_machine_asks_its_own_loopback(self) -> None:
        assert network.resolver("search firm.example\nnameserver 127.0.0.53\n") == "nameserver 10.0.2.3\nsearch firm.example\n"
        assert network.resolver("nameserver 192.0.2.1\n") == "nameserver 192.0.2.1\n"

    def test_what_the_environment_names_on_loopback_can_be_reached(self) -> None:
        texts = [
            "http://localhost:3128",
            "https://user:word@127.0.0.1:8443/simple",
            "http://[::1]/x",
            "http://example.com:99",
            "x http://127.0.0.1",
        ]
        assert network.loopback_ports(texts) == {3128, 8443, 80}

    def test_a_step_in_a_shared_sandbox_is_on_the_same_network(self, executor: HostExecutor, workspace: str) -> None:
        out: list[bytes] = []
        with executor.open(Order("job", workspace)) as sandbox:
            env = {"PATH": os.environ["PATH"]}
            sandbox.run("python3 -m http.server 8099 --bind 127.0.0.1 >/dev/null 2>&1 &\nsleep 1", env, out.append, lingering=True)
            look = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8099').status)"
            sandbox.run(f'python3 -c "{look}"', env, out.append, lingering=True)

        assert b"".join(out) == b"200\n"

    @pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="only root can name a network: run the tests as root, with iproute2"
    )
    def test_networks_that_the_machine_has_named_stay(self, executor: HostExecutor, workspace: str) -> None:
        name = f"trunkline-kept-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        try:
            self._run(executor, workspace, "true")

            assert name in Path("/proc/self/mountinfo").read_text()
        finally:
            subprocess.run(["ip", "netns", "del", name], check=True)
