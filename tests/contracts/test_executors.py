"""Every executor against its contract."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.adapters.executors.host import HostExecutor, find_bubblewrap
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

        code, out = self._run(HostExecutor(**limits), workspace, script)  # type: ignore[arg-type]

        assert code != 0
        assert said in out


class TestHostInBubblewrap(ExecutorContract):
    """Processes that see little."""

    @pytest.fixture
    def executor(self) -> HostExecutor:
        bwrap = find_bubblewrap()
        if bwrap is None:
            pytest.skip("bubblewrap can't make sandboxes here: allow user namespaces, or apt install bubblewrap")
        return HostExecutor(bwrap)

    def test_the_rest_of_the_machine_is_read_only_and_other_programs_invisible(self, executor: HostExecutor, workspace: str) -> None:
        code, out = self._run(executor, workspace, "touch /usr/x 2>/dev/null && echo written; ls /proc | grep -c '^[0-9]*$'")

        assert code == 0
        assert "written" not in out
        assert int(out.split()[-1]) < 8

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
        mine = HostExecutor(executor.isolation)

        _, out = self._run(mine, workspace, f"cd {home} && find . -type f | sort")

        assert out.split() == ["./.config/pip/pip.conf", "./.local/bin/tool", "./node/bin/node", "./node/lib/its"]
