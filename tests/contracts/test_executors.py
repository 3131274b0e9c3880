"""Every executor against its contract."""

import os

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
