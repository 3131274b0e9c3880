"""Every executor against its contract."""

import pytest

from trunkline.adapters.executors.host import HostExecutor, find_bubblewrap
from trunkline.testing.contracts.executor import ExecutorContract


class TestHost(ExecutorContract):
    """Plain processes."""

    @pytest.fixture
    def executor(self) -> HostExecutor:
        return HostExecutor()


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
