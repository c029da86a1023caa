"""Metrics of the newest snapshot of the home: the end of the way from an episode to training."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from pydantic import ValidationError

from learners.snapshots import SnapshotManifest

_PRACTICE = "practice"


def snapshot_metrics(home: Path) -> Iterator[Metric]:
    """The trajectories of the newest snapshot; nothing before the first, or where its manifest cannot be read."""
    manifests = sorted((home / "snapshots").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        return
    try:
        manifest = SnapshotManifest.model_validate_json(manifests[-1].read_bytes())
    except (OSError, ValidationError):
        return  # `ratchet verify` names it
    counts = {"production": 0, _PRACTICE: 0}
    for kind, count in manifest.episodes.items():
        counts[_PRACTICE if kind.startswith(_PRACTICE) else "production"] += count
    episodes = GaugeMetricFamily(
        "ratchet_snapshot_episodes",
        "Distinct trajectories of the newest snapshot: of `production`, canaries planted for tests of memorisation "
        "included, and of `practice`.",
        labels=["origin"],
    )
    for origin, count in counts.items():
        episodes.add_metric([origin], count)
    yield episodes
    yield GaugeMetricFamily("ratchet_snapshot_branches", "Branches in the newest snapshot.", value=manifest.branches)
