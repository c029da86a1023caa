"""Metrics of the groups that have an adapter of their own; none where the settings name no groups."""

from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.registry.audit import Action
from daemon.serving.groups import ServedGroup, ServedGroups

_ACTIONS = (Action.PROMOTED, Action.ROLLED_BACK, Action.RESTORED, Action.PROMOTION_FAILED)
_DEFAULT = "default"


@dataclass(frozen=True, slots=True, eq=False)
class GroupMetrics(Collector):
    """Changes are counted in the audit logs, loads since the start of the process.

    The label `group` has the names of the settings, and `default`.
    """

    groups: ServedGroups

    def collect(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily(
            "ratchet_group_loaded",
            "1 if the champion of the group is loaded; 0 while it is unloaded until a call asks for it.",
            labels=["group"],
        )
        loads = CounterMetricFamily(
            "ratchet_group_loads", "Champions that were loaded because a call asked for them.", labels=["group"]
        )
        unloads = CounterMetricFamily(
            "ratchet_group_unloads", "Champions that were unloaded to make room for others.", labels=["group"]
        )
        refused = CounterMetricFamily(
            "ratchet_group_refused",
            "Calls that were answered with 503, because the champion was not loaded in time.",
            labels=["group"],
        )
        changes = CounterMetricFamily(
            "ratchet_group_changes",
            "Changes of what serves the group: `promoted`, `rolled_back`, `restored`, `promotion_failed`.",
            labels=["group", "action"],
        )
        for group in self.groups.all.values():
            name = group.name or _DEFAULT
            loaded.add_metric([name], float(group.alias.served is not None))
            if group.seat is not None:
                loads.add_metric([name], group.seat.loads)
                unloads.add_metric([name], group.seat.unloads)
                refused.add_metric([name], group.seat.refused)
            for action, count in _changes(group).items():
                changes.add_metric([name, action.value], count)
        yield from (loaded, loads, unloads, refused, changes)


def _changes(group: ServedGroup) -> dict[Action, int]:
    counts = Tally(entry.action for entry in group.registry.audit.read())
    return {action: counts[action] for action in _ACTIONS}
