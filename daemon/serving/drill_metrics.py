"""Metrics of the drills of the rollback, from the audit log, so that no restart resets them."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from daemon.registry.audit import AuditEntry


def drill_metrics(entries: Sequence[AuditEntry]) -> Iterator[Metric]:
    """How long the last drill took that succeeded, and when it was; nothing of that before there is one."""
    drills = [entry.drill for entry in entries if entry.drill is not None]
    yield CounterMetricFamily(
        "ratchet_rollback_drill_failures",
        "Drills of the rollback that failed.",
        value=sum(1 for drill in drills if drill.failed),
    )
    last = next((drill for drill in reversed(drills) if not drill.failed), None)
    if last is None or last.seconds is None:
        return
    yield GaugeMetricFamily(
        "ratchet_rollback_drill_seconds",
        "Time from the beginning of the last drill to the first reply of the adapter that served before.",
        value=last.seconds,
    )
    yield GaugeMetricFamily(
        "ratchet_rollback_drill_last_success_timestamp_seconds",
        "When the last drill of the rollback began that succeeded.",
        value=last.began.timestamp(),
    )
