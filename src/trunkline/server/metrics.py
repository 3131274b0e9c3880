"""What Prometheus reads of the server itself, and where it finds the applications that were deployed."""

import time
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from trunkline.model.deliveries import RolloutStatus
from trunkline.model.runs import Status
from trunkline.ports.delivery import BOUNDS
from trunkline.server.line import JobRunner, Line
from trunkline.server.rollouts import TAKEN_BACK, Environment, Walker

ENDS = tuple(s.value for s in RolloutStatus if s.is_final)
CAUSES = ("verdict", "broken", "hook", "person", "ill")
PLACE = ["project", "environment"]


class Metrics:
    """Taken from the state when it is asked for."""

    def __init__(self, line: Line, pool: JobRunner, walker: Walker) -> None:
        self.line, self.pool, self.walker = line, pool, walker

    def collect(self) -> list[Any]:
        """Return the metrics of this moment."""
        return [*self._runs(), *self._deliveries()]

    def _runs(self) -> list[Any]:
        line, pool = self.line, self.pool
        jobs = GaugeMetricFamily("trunkline_jobs", "Jobs of unfinished runs by status.", labels=["status"])
        states = [j.status for run in list(line.active.values()) for j in run.jobs]
        for status in (Status.CREATED, Status.QUEUED, Status.RUNNING, Status.MANUAL):
            jobs.add_metric([status.value], states.count(status))
        slots = GaugeMetricFamily("trunkline_runner_slots", "Slots of the server's own runner.", labels=["state"])
        slots.add_metric(["busy"], pool.slots - pool.free)
        slots.add_metric(["free"], pool.free)
        return [
            jobs,
            slots,
            CounterMetricFamily("trunkline_runs_planned", "Runs planned since the start.", value=line.counts["runs"]),
            CounterMetricFamily("trunkline_jobs_started", "Jobs started since the start.", value=line.counts["jobs"]),
        ]

    def _deliveries(self) -> list[Any]:
        each = [*PLACE, "release"]
        weight = GaugeMetricFamily("deploy_weight_ratio", "Share of the traffic.", labels=each)
        release = InfoMetricFamily("deploy_release", "Which commit a release is.", labels=each)
        requests = CounterMetricFamily("deploy_requests", "Requests answered by a release.", labels=each)
        bad = CounterMetricFamily("deploy_bad_requests", "Those with 5xx or without an answer.", labels=each)
        times = HistogramMetricFamily("deploy_request_duration_seconds", "How long a release took to answer.", labels=each)
        instances = GaugeMetricFamily("deploy_instances", "Instances of a release.", labels=[*each, "state"])
        evidence = GaugeMetricFamily("deploy_analysis_evidence", "Evidence that the new release is worse.", labels=[*PLACE, "metric"])
        paused = GaugeMetricFamily("deploy_rollout_paused", "1 while a rollout waits for a person.", labels=PLACE)
        ended = CounterMetricFamily("deploy_rollouts", "Rollouts that have ended, by how.", labels=[*PLACE, "status"])
        back = CounterMetricFamily("deploy_rollbacks", "Releases that were taken back, by why.", labels=[*PLACE, "reason"])
        lead = GaugeMetricFamily("deploy_lead_time_seconds", "From the commit to all traffic, of the last release.", labels=PLACE)
        restore = GaugeMetricFamily(
            "deploy_time_to_restore_seconds", "From the first bad moment until traffic was back, last time.", labels=PLACE
        )
        for known in list(self.walker.environments.values()):
            place, history = [known.project, known.name], list(known.history)
            if not history:
                continue
            shas = {str(r.release.number): r.release.sha for r in history}
            for number, share in dict(known.weights).items():  # only what is up: a label for each release ever made would never end
                labels = [*place, str(number)]
                weight.add_metric(labels, share / 100)
                release.add_metric(labels, {"sha": shas.get(str(number), "")})
                counted = known.measured.counters.get(number)
                if counted is not None:
                    requests.add_metric(labels, counted.requests)
                    bad.add_metric(labels, counted.bad)
                    buckets = [(str(b), n) for b, n in zip((*BOUNDS, "+Inf"), counted.times, strict=True)]
                    times.add_metric(labels, buckets, None)
                found = list(known.instances.get(number, ()))
                ready = sum(i.ready for i in found)
                instances.add_metric([*labels, "ready"], ready)
                instances.add_metric([*labels, "not_ready"], len(found) - ready)
            under_way = known.under_way
            if known.verdict is not None and under_way is not None:
                for metric, harm in known.verdict.parts or (("errors", known.verdict.harm),):
                    evidence.add_metric([*place, metric], harm)
            if known.weak is not None:
                evidence.add_metric([*place, "since promotion"], known.weak.harm)
            paused.add_metric(place, 1 if under_way is not None and under_way.status is RolloutStatus.PAUSED else 0)
            for end in ENDS:  # those that never came about too: Prometheus sees no increase from nothing to one
                ended.add_metric([*place, end], known.ends[end])
            for reason in CAUSES:
                back.add_metric([*place, reason], known.causes[reason])
            self._speeds(known, lead, restore)
        return [weight, release, requests, bad, times, instances, evidence, paused, ended, back, lead, restore]

    def _speeds(self, known: Environment, lead: Any, restore: Any) -> None:
        place = [known.project, known.name]
        for rollout in reversed(known.history):
            if rollout.status is RolloutStatus.PROMOTED and rollout.release.committed_at and not rollout.reason:
                lead.add_metric(place, max(0.0, (rollout.finished_at or time.time()) - rollout.release.committed_at))
                break
        for rollout in reversed(known.history):
            told = rollout.explanation
            if rollout.status in TAKEN_BACK and told is not None and told.first_bad_at and rollout.finished_at:
                restore.add_metric(place, max(0.0, rollout.finished_at - told.first_bad_at))
                break


def scrape_targets(walker: Walker) -> list[dict[str, Any]]:
    """Return the running instances of environments with `metrics`, as Prometheus' HTTP service discovery reads them."""
    found = []
    for known in list(walker.environments.values()):
        specs = {r.release.number: r.spec for r in list(known.history)}
        for number, instances in dict(known.instances).items():
            spec = specs.get(number)
            if spec is None or not spec.metrics:
                continue
            labels = {"project": known.project, "environment": known.name, "release": str(number), "__metrics_path__": spec.metrics}
            found += [{"targets": [i.address], "labels": {**labels, "number": str(i.number)}} for i in instances if i.status == "running"]
    return found
