"""Adapters: all of them, one with its lineage and data, and two beside each other."""

import asyncio
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from daemon.learning.why import WhyReport, why
from daemon.pages.parts import Parts
from daemon.pages.rendering import figure, page, percent, when
from daemon.registry.audit import AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.refs import states_of
from daemon.registry.schemas import CycleReport
from evaluation.report import GateReport
from learners.adapters import MANIFEST, AdapterManifest, AdapterStore
from learners.provenance import Provenance
from ratchet_client.settings import FrozenModel

MOST_ADAPTERS = 200
_MOST_PRINCIPALS = 50


class Listed(FrozenModel):
    """An adapter in the list. `manifest` is as its file has it, unchecked; None where it cannot be read."""

    adapter: str
    state: State | None
    manifest: AdapterManifest | None
    cycle: CycleReport | None


async def adapters(request: Request, parts: Parts) -> Response:
    entries = await asyncio.to_thread(parts.registry.audit.read)
    listed = await asyncio.to_thread(_listed, parts, entries)
    refs = await asyncio.to_thread(parts.registry.refs)
    return page(
        request,
        parts,
        "adapters.html",
        title="Adapters",
        listed=listed[:MOST_ADAPTERS],
        others=len(listed[MOST_ADAPTERS:]),
        champion=refs.champion,
    )


async def adapter(request: Request, parts: Parts) -> Response:
    report = await _why(parts, request.query_params.get("adapter", ""))
    return page(
        request,
        parts,
        "adapter.html",
        title=f"Adapter {report.adapter[:12]}",
        report=report,
        principals=_principals(report.principals),
        inherited=_principals(report.inherited),
    )


async def compare(request: Request, parts: Parts) -> Response:
    names = (request.query_params.get("one", ""), request.query_params.get("two", ""))
    one, two = [await _why(parts, name) for name in names]
    rows = [await asyncio.to_thread(_facts, parts, report) for report in (one, two)]
    places = dict.fromkeys((*rows[0], *rows[1]))
    table = [(place, rows[0].get(place, ""), rows[1].get(place, "")) for place in places]
    return page(request, parts, "compare.html", title="Two adapters", one=one, two=two, table=table)


def _listed(parts: Parts, entries: list[AuditEntry]) -> list[Listed]:
    states = states_of(entries)
    cycles = {entry.subject: entry.cycle for entry in entries if entry.cycle is not None}
    store = parts.adapters
    found = [
        Listed(adapter=each, state=states.get(each), manifest=_manifest(store, each), cycle=cycles.get(each))
        for each in store.digests()
    ]
    return sorted(found, key=lambda each: "" if each.manifest is None else each.manifest.trained_at.isoformat())[::-1]


def _manifest(store: AdapterStore, digest: str) -> AdapterManifest | None:
    # Not the store's own reading, which computes the digest of all weights.
    try:
        return AdapterManifest.model_validate_json((store.folder(digest) / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


async def _why(parts: Parts, name: str) -> WhyReport:
    provenance = Provenance(parts.adapters, parts.home / "snapshots")
    return await asyncio.to_thread(why, name, parts.registry, parts.adapters, provenance)


def _principals(counts: dict[str, int] | None) -> dict[str, Any]:
    if counts is None:
        return {"known": False, "named": [], "others": 0}
    named = list(counts.items())
    return {"known": True, "named": named[:_MOST_PRINCIPALS], "others": len(named[_MOST_PRINCIPALS:])}


def _facts(parts: Parts, report: WhyReport) -> dict[str, str]:
    """What there is to compare, each by its name."""
    snapshot, gates = report.snapshot, GateReport.read(parts.registry.adapter_folder(report.adapter))
    facts = {
        "state": str(report.state or "never judged"),
        "trained": when(report.trained_at),
        "trained from": report.parents[0][:12] if report.parents else "the base model",
        "snapshot": snapshot.snapshot_id,
        "as of": f"sequence {snapshot.as_of}",
        "episodes": ", ".join(f"{count} of actor {kind}" for kind, count in sorted(snapshot.episodes.items())),
        "steps": str(snapshot.steps),
        "branches": str(snapshot.branches),
        "objectives": ", then ".join(map(str, report.settings.stages)),
        "seed": str(report.seed),
    }
    if gates is not None:
        facts["verdict"] = gates.verdict.value
        if gates.held_out is not None:
            facts |= {
                "tasks played": str(gates.held_out.candidate.tasks),
                "success on held-out tasks": percent(gates.held_out.candidate.success),
                "champion's success on the same": percent(gates.held_out.champion.success),
            }
        for result in gates.gates:
            facts[f"gate {result.gate}"] = result.verdict.value
            for name, value in result.figures.items():
                facts[f"{result.gate}: {name.replace('_', ' ')}"] = figure(value)
    return facts | {f"setting {name}": value for name, value in _flat(report.settings.model_dump(mode="json"))}


def _flat(settings: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, dict) else [(f"{before}{name}", str(value))]
    return found
