"""What every store owes: ports.store."""

import pytest

from trunkline.kit.record import replace
from trunkline.model.deliveries import EnvironmentSpec, Explanation, Phase, PhaseKind, Release, Rollout, RolloutStatus
from trunkline.model.errors import Conflict, TrunklineError
from trunkline.model.events import EventKind
from trunkline.model.runs import Fact, Status
from trunkline.model.schedules import Schedule
from trunkline.ports.store import Project, Store, Transaction
from trunkline.testing.builders import a_job, a_run, an_event


class StoreContract:
    """Subclasses define the fixture `store`."""

    @pytest.fixture
    def project(self, store: Store) -> Project:
        """A project."""
        return store.write(lambda tx: tx.create_project("group/project", "main", 1.0))

    def test_a_run_comes_back_as_it_was_saved(self, store: Store, project: Project) -> None:
        run = a_run(a_job("build", "build"), a_job("test", needs=("build",)), a_job("free", needs=()))

        saved = store.write(lambda tx: tx.add_run(project, run, [Fact("RunPlanned", 0)]))

        assert store.read(lambda tx: tx.load_run(saved.id)) == saved
        assert [f.kind for f in store.read(lambda tx: tx.facts(saved.id))] == ["RunPlanned"]

    def test_runs_are_numbered_within_their_project(self, store: Store, project: Project) -> None:
        other = store.write(lambda tx: tx.create_project("group/other", "main", 1.0))

        numbers = [store.write(lambda tx, p=p: tx.add_run(p, a_run(a_job("j")), ())).number for p in (project, other, project)]  # type: ignore[misc]

        assert numbers == [1, 1, 2]

    def test_a_change_is_saved_with_its_facts_and_attempts(self, store: Store, project: Project) -> None:
        run = store.write(lambda tx: tx.add_run(project, a_run(a_job("a"), a_job("b")), ()))
        started = run.with_jobs({"a": replace(run.job("a"), status=Status.RUNNING, started_at=6.0)})
        done = replace(started.job("a"), status=Status.FAILED, exit_code=7, message="exit code 7", finished_at=9.0)
        ended = replace(started.with_jobs({"a": done}), status=Status.FAILED, finished_at=9.0)

        started = store.write(lambda tx: tx.save_run(run, started, [Fact("JobStarted", run.id, "a")], 6.0))
        ended = store.write(
            lambda tx: tx.save_run(started, replace(ended, version=started.version), [Fact("JobFinished", run.id, "a")], 9.0)
        )

        loaded = store.read(lambda tx: tx.load_run(run.id))
        assert loaded == ended
        assert loaded is not None
        assert [a["status"] for a in store.read(lambda tx: tx.attempts(loaded.job("a").id))] == ["failed"]
        assert ("JobFinished", "a") in [(f.kind, f.job) for f in store.read(lambda tx: tx.facts(run.id))]

    def test_whoever_decides_on_an_old_state_of_a_run_is_refused_and_can_look_again(self, store: Store, project: Project) -> None:
        run = store.write(lambda tx: tx.add_run(project, a_run(a_job("a"), a_job("b")), ()))
        mine = run.with_jobs({"a": replace(run.job("a"), status=Status.RUNNING, started_at=6.0)})
        theirs = run.with_jobs({"b": replace(run.job("b"), status=Status.RUNNING, server="other", started_at=7.0)})
        theirs = store.write(lambda tx: tx.save_run(run, theirs, (), 7.0))

        with pytest.raises(Conflict):
            store.write(lambda tx: tx.save_run(run, mine, [Fact("JobStarted", run.id, "a")], 8.0))

        assert store.read(lambda tx: tx.facts(run.id)) == []
        assert store.read(lambda tx: tx.renewed(run)) == theirs == store.read(lambda tx: tx.load_run(run.id))
        assert store.read(lambda tx: tx.renewed(theirs)) is theirs
        assert store.read(lambda tx: tx.versions()) == {run.id: theirs.version} == store.read(lambda tx: tx.versions(project.path))

    def test_a_run_that_got_other_jobs_is_renewed_whole(self, store: Store, project: Project) -> None:
        run = store.write(lambda tx: tx.add_run(project, a_run(a_job("a"), a_job("b")), ()))
        late = replace(run, jobs=(*run.jobs[1:], a_job("c")))

        saved = store.write(lambda tx: tx.rewrite_jobs(run, late, (), 7.0))

        assert [j.name for j in saved.jobs] == ["b", "c"]
        assert store.read(lambda tx: tx.renewed(run)) == saved
        with pytest.raises(Conflict):
            store.write(lambda tx: tx.rewrite_jobs(run, late, (), 8.0))

    def test_a_run_that_is_locked_is_renewed_and_the_first_of_several_is_free(self, store: Store, project: Project) -> None:
        one, two = (store.write(lambda tx: tx.add_run(project, a_run(a_job("a")), ())) for _ in range(2))

        assert store.write(lambda tx: tx.first_free([two.id, one.id])) == one.id
        assert store.write(lambda tx: tx.first_free([])) is None
        assert store.write(lambda tx: tx.renewed(two, lock=True)) is two

    def test_artifacts_in_the_bucket_are_known_until_they_are_forgotten(self, store: Store) -> None:
        store.write(lambda tx: tx.keep_artifacts(1, 10, 5.0, [("a b/ü", 5 << 32), ("c", 0)]))
        store.write(lambda tx: tx.keep_artifacts(1, 11, 7.0, [("x", 1)], 100.0))
        store.write(lambda tx: tx.keep_artifacts(1, 11, 8.0, [("y", 2)], 100.0))

        assert store.read(lambda tx: tx.kept_artifacts([10, 11, 12])) == {10: 5.0, 11: 8.0}
        assert store.read(lambda tx: tx.listed_artifacts(10)) == [("a b/ü", 5 << 32), ("c", 0)]
        assert store.read(lambda tx: tx.listed_artifacts(11)) == [("y", 2)]
        assert store.read(lambda tx: tx.listed_artifacts(12)) == []
        assert store.read(lambda tx: tx.expired_artifacts(99.0)) == []
        assert store.read(lambda tx: tx.expired_artifacts(101.0)) == [(1, 11)]
        store.write(lambda tx: tx.forget_artifacts(11))
        assert store.read(lambda tx: tx.kept_artifacts([10, 11])) == {10: 5.0}

    def test_a_use_case_that_raises_leaves_nothing_and_harms_no_other(self, store: Store, project: Project) -> None:
        def breaks(tx: Transaction) -> None:
            tx.create_project("group/half", "main", 1.0)
            raise TrunklineError("no")

        with pytest.raises(TrunklineError):
            store.write(breaks)

        assert store.read(lambda tx: tx.find_project("group/half")) is None
        assert store.write(lambda tx: tx.create_project("group/whole", "main", 1.0)).path == "group/whole"

    def test_unfinished_runs_are_found_again(self, store: Store, project: Project) -> None:
        run = store.write(lambda tx: tx.add_run(project, a_run(a_job("a")), ()))

        assert store.read(lambda tx: tx.unfinished_runs()) == [run.id]

    def test_the_newest_job_of_a_ref_is_never_that_of_a_request_whose_branch_is_called_alike(self, store: Store, project: Project) -> None:
        passed = replace(a_run(replace(a_job("build"), status=Status.PASSED)), status=Status.PASSED)
        own = store.write(lambda tx: tx.add_run(project, passed, ()))
        strange = replace(passed, event=an_event("main", EventKind.CHANGE_REQUEST))
        store.write(lambda tx: tx.add_run(project, strange, ()))

        newest = store.read(lambda tx: tx.newest_job("group/project", "main", "build"))

        assert newest == (own.id, own.job("build").id)
        assert store.read(lambda tx: tx.run_of(own.job("build").id)) == own.id

    def test_sessions_end_and_tokens_name_their_user(self, store: Store) -> None:
        user = store.write(lambda tx: tx.set_password("ada", "hash", True, 1.0))
        store.write(lambda tx: tx.add_session("s", user.id, 100.0))
        store.write(lambda tx: tx.add_token(user.id, "ci", "t", 1.0))

        assert store.read(lambda tx: tx.session_user("s", 99.0)) == user
        assert store.read(lambda tx: tx.session_user("s", 101.0)) is None
        assert store.read(lambda tx: tx.token_user("t")) == user
        assert store.read(lambda tx: tx.token_user("x")) is None
        assert store.read(lambda tx: tx.has_admin())

    def test_dotenv_variables_are_kept_by_job(self, store: Store, project: Project) -> None:
        run = store.write(lambda tx: tx.add_run(project, a_run(a_job("a")), ()))
        store.write(lambda tx: tx.save_dotenv(run.job("a").id, (("URL", "x"),)))

        assert store.read(lambda tx: tx.dotenv(run.id)) == {"a": (("URL", "x"),)}

    def test_releases_are_numbered_by_project_and_rollouts_come_back_as_they_were(self, store: Store) -> None:
        one = store.write(lambda tx: tx.add_release(Release(0, "g/p", 0, "a" * 40, "First")))
        two = store.write(lambda tx: tx.add_release(Release(0, "g/p", 0, "b" * 40, "Second")))
        other = store.write(lambda tx: tx.add_release(Release(0, "g/other", 0, "c" * 40)))
        spec = EnvironmentSpec("production", "serve", install=("pip install x",), variables=(("A", "b"),), port=80)
        rollout = Rollout(
            0, "g/p", "production", two, one, spec, (Phase(PhaseKind.SET_WEIGHT, 10), Phase(PhaseKind.PROMOTE)), approved_by=("Ada",)
        )

        rollout = store.write(lambda tx: tx.add_rollout(rollout))
        ended = replace(rollout, status=RolloutStatus.ROLLED_BACK, explanation=Explanation("why", commits=("a",), hurt=3), finished_at=5.0)
        store.write(lambda tx: tx.save_rollout(ended))

        assert [(r.number, r.title) for r in store.read(lambda tx: tx.releases("g/p"))] == [(1, "First"), (2, "Second")]
        assert other.number == 1
        assert store.read(lambda tx: tx.rollouts("g/p")) == [ended]
        assert store.read(lambda tx: tx.rollouts()) == [ended]

    def test_schedules_come_back_as_they_were_until_they_are_removed(self, store: Store) -> None:
        first = store.write(lambda tx: tx.add_schedule(Schedule(0, "g/p", "30 2 * * *", "main", variables=(("A", "1"),), next_at=5.0)))
        second = store.write(lambda tx: tx.add_schedule(Schedule(0, "g/q", "@daily", "main")))
        store.write(lambda tx: tx.save_schedule(replace(first, is_active=False, last_run=7)))

        assert store.read(lambda tx: tx.schedules()) == [replace(first, is_active=False, last_run=7), second]
        store.write(lambda tx: tx.remove_schedule(first.id))
        assert store.read(lambda tx: tx.schedules()) == [second]
