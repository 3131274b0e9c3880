"""Files that have Prometheus and Grafana watch a Trunkline server and what it deployed: made of nothing but the server's address. Pure.

prometheus/prometheus.yml        scrapes the server, and every instance of environments with `metrics`, found by asking the server
prometheus/alerts.yml            what somebody should be woken for, or read in the morning
prometheus/alerts.test.yml       `promtool test rules` on each alert: when it fires, and when not
grafana/dashboards/trunkline.json, grafana/provisioning/...   the dashboard, and how Grafana finds it and Prometheus
docker-compose.yml               both, started
"""

import json
from typing import Any
from urllib.parse import urlsplit

import yaml

RANGE = "5m"
PLACE = "project, environment"

ALERTS: tuple[tuple[str, str, str, str, str, str], ...] = (
    # name, expression, for, severity, summary, what to do
    ("TrunklineDown", 'up{job="trunkline"} == 0', "2m", "page",
     "Trunkline does not answer", "What is deployed goes on serving. Is the process running? Its log says why it ended."),
    ("EnvironmentWithoutInstances", f'sum by ({PLACE}) (deploy_instances{{state="ready"}}) == 0', "1m", "page",
     "Nothing is ready in {{ $labels.environment }} of {{ $labels.project }}", "trunkline env, then trunkline rollback {{ $labels.environment }}"),
    ("HighErrorRatio", f"sum by ({PLACE}) (rate(deploy_bad_requests_total[{RANGE}])) / sum by ({PLACE}) (rate(deploy_requests_total[{RANGE}])) > 0.05", "5m", "page",
     "{{ $value | humanizePercentage }} of the requests to {{ $labels.environment }} of {{ $labels.project }} fail",
     "trunkline rollback {{ $labels.environment }} if the last release did it"),
    ("WorseSincePromotion", f'max by ({PLACE}) (deploy_analysis_evidence{{metric="since promotion"}}) > 100', "1m", "page",
     "The last release in {{ $labels.environment }} of {{ $labels.project }} fails more often than the one before did",
     "the page Environments tells the numbers; trunkline rollback {{ $labels.environment }} if it is the release"),
    ("InstanceNotReady", f'sum by ({PLACE}, release) (deploy_instances{{state="not_ready"}}) > 0', "10m", "ticket",
     "Release {{ $labels.release }} in {{ $labels.environment }} has instances that are not ready", "the page Environments shows why"),
    ("RolloutTakenBack", f"sum by ({PLACE}, reason) (increase(deploy_rollbacks_total[15m])) > 0", "0m", "ticket",
     "A release was taken back in {{ $labels.environment }} of {{ $labels.project }} ({{ $labels.reason }})", "the page Environments says why"),
    ("RolloutWaits", f"max by ({PLACE}) (deploy_rollout_paused) == 1", "15m", "ticket",
     "A rollout to {{ $labels.environment }} of {{ $labels.project }} waits for somebody", "trunkline promote, resume or abort decides"),
    ("NoFreeSlots", 'trunkline_runner_slots{state="free"} == 0 and on() sum(trunkline_jobs{status="queued"}) > 0', "15m", "ticket",
     "Jobs have been waiting for 15 minutes: all slots are busy", "more slots, another machine, or a job that hangs"),
)  # fmt: skip


def files(url: str) -> dict[str, str]:
    """Return the path and content of every file for the server at this address."""
    return {
        "prometheus/prometheus.yml": prometheus(url),
        "prometheus/alerts.yml": alerts(),
        "prometheus/alerts.test.yml": alert_tests(),
        "grafana/dashboards/trunkline.json": json.dumps(dashboard(), indent=1) + "\n",
        "grafana/provisioning/dashboards/trunkline.yml": _yaml(
            {"apiVersion": 1, "providers": [{"name": "trunkline", "type": "file", "options": {"path": "/etc/grafana/dashboards"}}]}
        ),
        "grafana/provisioning/datasources/prometheus.yml": _yaml(
            {
                "apiVersion": 1,
                "datasources": [
                    {"name": "Prometheus", "uid": "prometheus", "type": "prometheus", "url": "http://localhost:9090", "isDefault": True}
                ],
            }
        ),
        "docker-compose.yml": compose(),
    }


def prometheus(url: str) -> str:
    """Return the configuration of Prometheus."""
    parts = urlsplit(url)
    return _yaml(
        {
            "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {"job_name": "trunkline", "scheme": parts.scheme, "static_configs": [{"targets": [parts.netloc]}]},
                {
                    "job_name": "deployed",
                    "scrape_interval": "5s",
                    "http_sd_configs": [{"url": f"{url.rstrip('/')}/metrics/targets", "refresh_interval": "10s"}],
                },
            ],
        }
    )


def alerts() -> str:
    """Return the alert rules."""
    rules = [
        {
            "alert": name,
            "expr": expression,
            "for": span,
            "labels": {"severity": severity},
            "annotations": {"summary": summary, "action": action},
        }
        for name, expression, span, severity, summary, action in ALERTS
    ]
    return _yaml({"groups": [{"name": "trunkline", "rules": rules}]})


def alert_tests() -> str:
    """Return tests of the alert rules: each with series that should set it off, and the same alert silent on a quiet system."""
    place = 'project="shop/web",environment="production"'
    loud = {
        "TrunklineDown": ('up{job="trunkline"}', "0x30", {"job": "trunkline"}),
        "EnvironmentWithoutInstances": (f'deploy_instances{{{place},release="2",state="ready"}}', "0x30", {}),
        "HighErrorRatio": (f'deploy_bad_requests_total{{{place},release="2"}}', "0+30x30", {}),
        "WorseSincePromotion": (f'deploy_analysis_evidence{{{place},metric="since promotion"}}', "500x30", {}),
        "InstanceNotReady": (f'deploy_instances{{{place},release="2",state="not_ready"}}', "1x30", {"release": "2"}),
        "RolloutTakenBack": (f'deploy_rollbacks_total{{{place},reason="verdict"}}', "0x20 1x10", {"reason": "verdict"}),
        "RolloutWaits": (f"deploy_rollout_paused{{{place}}}", "1x30", {}),
        "NoFreeSlots": ('trunkline_runner_slots{state="free"}', "0x30", {"state": "free"}),
    }
    quiet = {
        'up{job="trunkline"}': "1x30",
        f'deploy_instances{{{place},release="2",state="ready"}}': "2x30",
        f'deploy_instances{{{place},release="2",state="not_ready"}}': "0x30",
        f'deploy_requests_total{{{place},release="2"}}': "0+300x30",
        f'deploy_analysis_evidence{{{place},metric="since promotion"}}': "3x30",
        f'deploy_bad_requests_total{{{place},release="2"}}': "0+1x30",
        f'deploy_rollbacks_total{{{place},reason="verdict"}}': "0x30",
        f"deploy_rollout_paused{{{place}}}": "0x30",
        'trunkline_runner_slots{state="free"}': "2x30",
        'trunkline_jobs{status="queued"}': "3x30",
    }
    tests: list[dict[str, Any]] = []
    for name, _, _, severity, summary, action in ALERTS:
        series, values, labels = loud[name]
        wanted = {
            "severity": severity,
            **({} if name in ("TrunklineDown", "NoFreeSlots") else {"project": "shop/web", "environment": "production"}),
            **labels,
        }
        said = {"summary": _filled(summary, wanted), "action": _filled(action, wanted)}
        tests.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in {**quiet, series: values}.items()],
                "alert_rule_test": [
                    {"eval_time": "25m", "alertname": name, "exp_alerts": [{"exp_labels": wanted, "exp_annotations": said}]}
                ],
            }
        )
    silent = [{"eval_time": "25m", "alertname": name, "exp_alerts": []} for name, *_ in ALERTS]
    tests.append(
        {
            "name": "quiet",
            "interval": "1m",
            "input_series": [{"series": s, "values": v} for s, v in quiet.items()],
            "alert_rule_test": silent,
        }
    )
    return _yaml({"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests})


def _filled(text: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        text = text.replace(f"{{{{ $labels.{label} }}}}", value)
    return text.replace("{{ $value | humanizePercentage }}", "10%")


def queries() -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Return the dashboard's panels: title, unit, kind, and queries with their legends."""
    chosen = '{project=~"$project",environment=~"$environment"}'
    buckets = f"sum by (environment, release, le) (rate(deploy_request_duration_seconds_bucket{chosen}[1m]))"
    each = "sum by (environment, release)"
    return [
        ("Requests a second by release", "reqps", "timeseries", [(f"{each} (rate(deploy_requests_total{chosen}[1m]))", "{{environment}} {{release}}")]),
        ("Bad requests by release", "percentunit", "timeseries", [
            (f"{each} (rate(deploy_bad_requests_total{chosen}[1m])) / {each} (rate(deploy_requests_total{chosen}[1m]))", "{{environment}} {{release}}")]),
        ("95 of 100 answers within", "s", "timeseries", [
            (f"histogram_quantile(0.95, {buckets})", "{{environment}} {{release}}")]),
        ("Share of the traffic", "percentunit", "timeseries", [(f"sum by (environment, release) (deploy_weight_ratio{chosen})", "{{environment}} {{release}}")]),
        ("Evidence of harm", "none", "timeseries", [(f"max by (environment, metric) (deploy_analysis_evidence{chosen})", "{{environment}} {{metric}}")]),
        ("Instances", "none", "timeseries", [(f"sum by (environment, release, state) (deploy_instances{chosen})", "{{environment}} {{release}} {{state}}")]),
        ("Rollouts that ended, in a day", "none", "stat", [(f"sum by (status) (increase(deploy_rollouts_total{chosen}[1d]))", "{{status}}")]),
        ("Taken back, by why, in a week", "none", "stat", [(f"sum by (reason) (increase(deploy_rollbacks_total{chosen}[7d]))", "{{reason}}")]),
        ("Lead time", "s", "stat", [(f"max by (environment) (deploy_lead_time_seconds{chosen})", "{{environment}}")]),
        ("Time to restore", "s", "stat", [(f"max by (environment) (deploy_time_to_restore_seconds{chosen})", "{{environment}}")]),
        ("Jobs", "none", "timeseries", [("sum by (status) (trunkline_jobs)", "{{status}}")]),
        ("Runner slots", "none", "timeseries", [("sum by (state) (trunkline_runner_slots)", "{{state}}")]),
    ]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard of Grafana, with rollouts that were taken back marked on every panel."""
    source = {"type": "prometheus", "uid": "prometheus"}
    panels = []
    for i, (title, unit, kind, targets) in enumerate(queries()):
        panels.append(
            {
                "id": i + 1, "title": title, "type": kind, "datasource": source, "gridPos": {"h": 8, "w": 12, "x": 12 * (i % 2), "y": 8 * (i // 2)},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {},
                "targets": [{"refId": chr(65 + n), "expr": query, "legendFormat": legend, "datasource": source} for n, (query, legend) in enumerate(targets)],
            }
        )  # fmt: skip
    variables = [
        {"name": name, "type": "query", "datasource": source, "query": {"query": query, "refId": name}, "refresh": 2, "multi": True, "includeAll": True,
         "allValue": ".*", "current": {"text": "All", "value": "$__all"}}
        for name, query in (("project", "label_values(deploy_weight_ratio, project)"),
                            ("environment", 'label_values(deploy_weight_ratio{project=~"$project"}, environment)'))
    ]  # fmt: skip
    back = {
        "name": "Taken back", "datasource": source, "enable": True, "iconColor": "red", "titleFormat": "{{environment}}: {{reason}}",
        "expr": 'increase(deploy_rollbacks_total{project=~"$project",environment=~"$environment"}[1m]) > 0',
    }  # fmt: skip
    return {
        "uid": "trunkline", "title": "Trunkline", "tags": ["trunkline"], "schemaVersion": 39, "version": 1, "editable": True, "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"}, "templating": {"list": variables}, "annotations": {"list": [back]}, "panels": panels,
    }  # fmt: skip


def compose() -> str:
    """Return a compose file that starts both beside the server, on the network of this machine."""
    return _yaml(
        {
            "services": {
                "prometheus": {
                    "image": "prom/prometheus",
                    "network_mode": "host",
                    "volumes": ["./prometheus:/etc/prometheus:ro", "prometheus:/prometheus"],
                },
                "grafana": {
                    "image": "grafana/grafana",
                    "network_mode": "host",
                    "environment": ["GF_SECURITY_ADMIN_PASSWORD=${GRAFANA_PASSWORD:?choose one}"],
                    "volumes": ["./grafana/provisioning:/etc/grafana/provisioning:ro", "./grafana/dashboards:/etc/grafana/dashboards:ro"],
                },
            },
            "volumes": {"prometheus": {}},
        }
    )


def _yaml(value: Any) -> str:
    return "# Written by `trunkline monitoring`.\n" + yaml.safe_dump(value, sort_keys=False, width=160, allow_unicode=True)
