"""Metrics of the canary that runs, and of those that ended."""

from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.registry.schemas import CanaryEnd, CanaryReport, ShadowFigures
from daemon.serving.audit_chain import AuditChain
from daemon.serving.canary import Canary

_SHADOW_RESULTS = ("copies", "dropped", "errors", "compared", "agreed", "tool_calls", "valid_tool_calls")


@dataclass(frozen=True, slots=True, eq=False)
class CanaryMetrics(Collector):
    """Ends are counted in the audit log; requests, errors and the shadow since the canary or the role began."""

    chain: AuditChain
    canary: Canary

    def collect(self) -> Iterator[Metric]:
        ends = Tally(entry.canary.ended for entry in self.chain.entries() if entry.canary is not None)
        ended = CounterMetricFamily(
            "ratchet_canaries",
            "Canaries that ended: `promoted`, `rolled_back`, `inconclusive`, `cancelled`.",
            labels=["end"],
        )
        for end in CanaryEnd:
            ended.add_metric([end.value], ends[end])
        yield ended
        report = self.canary.report()
        share = report.share if report is not None else 0.0
        yield GaugeMetricFamily(
            "ratchet_canary_share",
            "Share of new episodes that a candidate answers; 0 while no canary runs.",
            value=share,
        )
        if report is None:
            return
        yield from _of(report)
        if report.shadow is not None:
            yield from _of_shadow(report.shadow)


def _of(report: CanaryReport) -> Iterator[Metric]:
    figures = report.figures
    sides = ("champion", "candidate")
    episodes = GaugeMetricFamily(
        "ratchet_canary_episodes", "Judged episodes of the canary that runs.", labels=["side", "success"]
    )
    requests = GaugeMetricFamily(
        "ratchet_canary_requests", "Requests since the canary, or the serve role, began.", labels=["side"]
    )
    errors = GaugeMetricFamily(
        "ratchet_canary_errors", "Requests of the canary that the inference server failed on.", labels=["side"]
    )
    for side in sides:
        judged, solved = getattr(figures, f"{side}_episodes"), getattr(figures, f"{side}_successes")
        episodes.add_metric([side, "true"], solved)
        episodes.add_metric([side, "false"], judged - solved)
        requests.add_metric([side], getattr(report, f"{side}_requests"))
        errors.add_metric([side], getattr(report, f"{side}_errors"))
    evidence = GaugeMetricFamily(
        "ratchet_canary_evidence",
        "E-values of the canary for `better`, `worse` and, where asked for, `not_worse`; 2/alpha is a proof.",
        labels=["direction"],
    )
    for direction in ("better", "worse", "not_worse"):
        value = getattr(figures, f"e_{direction}")
        if value is not None:
            evidence.add_metric([direction], value)
    yield from (episodes, requests, errors, evidence)


def _of_shadow(shadow: ShadowFigures) -> Iterator[Metric]:
    calls = GaugeMetricFamily(
        "ratchet_shadow_calls",
        "Copies of calls for comparison: `copies`, `dropped`, `errors`, `compared`, `agreed` of them, and the "
        "candidate's `tool_calls` and `valid_tool_calls` of them.",
        labels=["result"],
    )
    for name in _SHADOW_RESULTS:
        calls.add_metric([name], getattr(shadow, name))
    seconds = GaugeMetricFamily("ratchet_shadow_seconds", "Time that copied calls took, in sum.", labels=["side"])
    seconds.add_metric(["champion"], shadow.champion_s)
    seconds.add_metric(["candidate"], shadow.candidate_s)
    yield from (calls, seconds)
