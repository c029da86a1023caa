"""The list of all metrics, read off the collectors of each role: `docs/metrics.md`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.core import Metric

from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.attested import Attested
from daemon.serving.call_metrics import Failure, Passage
from daemon.serving.canary import Canary
from daemon.serving.capture import Capture
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.groups import serve_groups
from daemon.serving.learner_metrics import learner_metrics
from daemon.serving.metrics import Metrics, holdout_metrics
from daemon.serving.replicas import Replicas
from daemon.serving.settings import ServingSettings, ShadowSettings
from daemon.serving.shadow import Shadow
from daemon.serving.store_watch import StoreWatch
from daemon.serving.upstream import Upstream
from evaluation.attestation import Attestation
from evaluation.settings import CanarySettings
from ops import examples
from streams.assembly.server import AssemblyMetrics
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.otlp.metrics import OtlpMetrics
from streams.otlp.status import OtlpStatus
from streams.policy.client import PolicyClient
from streams.runtime.metrics import process_registry
from streams.runtime.tally import Tally
from streams.store.client import StoreClient
from streams.store.metrics import StoreFile, write_seconds
from streams.trust.groups import AdapterGroup, AdapterSettings

_UNITS = ("seconds", "bytes", "ratio")
_HEAD = """# Metrics

Written by `python -m ops` from the code; a test compares it with what running roles answer. Each role answers
`GET /metrics` where it listens ([operating.md](operating.md#health)). [ops/](../ops/README.md) has the configuration of
Prometheus, alerts with their [runbooks](runbooks), and dashboards.

Durable facts are counted in the store and the audit log, so that a restart resets only what the serve, `assemble` and
`otlp` roles say of their own process. The store's are up to `serving.refresh_s` old, and absent until it was read once.
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """One metric: its name as queries have it, and what it means."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    @property
    def unit(self) -> str:
        """The unit that its name ends with; counters have it before `_total`."""
        stem = self.name.removesuffix("_total")
        return next((unit for unit in _UNITS if stem.endswith(f"_{unit}")), "")


def listed(role: str) -> list[Listed]:
    """The metrics that a role has beside those of its process, by name."""
    own = {metric.name for metric in process_registry("").collect()}
    return _listed(family for family in _ROLES[role]() if family.name not in own)


def of_processes() -> list[Listed]:
    """The metrics that every role has."""
    return _listed(process_registry("").collect())


def names() -> frozenset[str]:
    """The names of all series, those of the parts of histograms included."""
    found = [each for role in _ROLES for each in listed(role)] + of_processes()
    parts = ("_bucket", "_sum", "_count")
    return frozenset(
        name
        for each in found
        for name in ([each.name + part for part in parts] if each.kind == "histogram" else [each.name])
    )


def page() -> str:
    """The whole of `docs/metrics.md`."""
    sections = [(f"The {role} role", listed(role)) for role in _ROLES] + [("Every role", of_processes())]
    return _HEAD + "".join(f"\n## {title}\n\n{_table(found)}" for title, found in sections)


def _table(found: Iterable[Listed]) -> str:
    rows = ["| metric | type | labels | unit | |", "|---|---|---|---|---|"]
    for each in found:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        rows.append(f"| `{each.name}` | {each.kind} | {labels} | {each.unit} | {each.help.replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def _listed(families: Iterable[Metric]) -> list[Listed]:
    labels: dict[str, set[str]] = {}
    kept: dict[str, Metric] = {}
    for family in families:
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        kept[name] = family
        labels.setdefault(name, set()).update(*(sample.labels for sample in family.samples))
    return [
        Listed(
            name,
            "gauge" if kept[name].type == "info" else kept[name].type,
            _sorted(labels[name]),
            kept[name].documentation,
        )
        for name in sorted(kept)
    ]


def _sorted(labels: set[str]) -> tuple[str, ...]:
    return tuple(sorted(labels - {"le"}))


def _serve() -> Iterator[Metric]:
    with TemporaryDirectory() as folder:
        yield from list(_serve_in(Path(folder)))
    yield from holdout_metrics(examples.HOLDOUT)
    for report in examples.learners():
        yield from learner_metrics(report)


def _serve_in(home: Path) -> Iterator[Metric]:
    """The families of a serve role that has seen one of everything."""
    registry, alias, kafka = Registry(home), Alias("assistant"), KafkaSettings()
    settings = ServingSettings(home=home, canary=CanarySettings(share=0.1), shadow=ShadowSettings(share=0.5))
    registry.record_cycle(examples.CYCLE, actor="learner")
    registry.audit.append(examples.DRILLED)
    manifest = home / "snapshots" / "one" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(examples.SNAPSHOT.model_dump_json())
    store = StoreWatch(
        StoreClient("http://127.0.0.1:9"), kafka, examples.STORE, up=True, lag={("ratchet.events", 0): 0}
    )
    replicas = Replicas([PolicyClient(settings.inference_url)])
    replicas.first.away = ""
    replicas.first.hold(examples.SERVED, examples.SERVED, 0.0)
    upstream = Upstream(replicas, 1)
    canary = Canary(settings.canary, home, Shadow(settings.shadow, upstream))
    support = AdapterSettings(groups={"support": AdapterGroup(agents=("support",))})
    groups = serve_groups(settings, support, replicas, upstream, store.client)
    canary.running = examples.CANARY
    publisher = Publisher(kafka, 1, 10_000, "example")
    feedback = FeedbackIntake(settings, kafka.calls_topic, publisher)
    attested = Attested()
    attested.note(examples.ADAPTER, Attestation(0.01, 1.0), passed=True)
    alias.point_to(examples.ADAPTER, examples.SERVED)
    capture = Capture(settings.capture, kafka.calls_topic, publisher)
    metrics = Metrics(registry, alias, store, capture, feedback, canary, replicas, attested, groups=groups)
    metrics.gateway_requests.labels(status="200").inc()
    passage = Passage(input_tokens=1, output_tokens=1, failure=Failure.TIMEOUT)
    passage.begin()
    metrics.calls.observe(examples.SERVED, passage)
    yield from metrics.collect()
    feedback.close()
    publisher.close()


def _record() -> Iterator[Metric]:
    with TemporaryDirectory() as folder:
        yield from [*write_seconds().collect(), *StoreFile(Path(folder) / "store.duckdb").collect()]


def _assemble() -> Iterator[Metric]:
    yield from AssemblyMetrics(examples.ASSEMBLY).collect()


def _otlp() -> Iterator[Metric]:
    yield from OtlpMetrics(Tally(OtlpStatus())).collect()


_ROLES: dict[str, Callable[[], Iterator[Metric]]] = {
    "serve": _serve,
    "record": _record,
    "assemble": _assemble,
    "otlp": _otlp,
}
