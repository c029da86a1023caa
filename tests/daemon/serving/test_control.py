from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.registry.audit import Action, AuditEntry
from daemon.registry.registry import Registry
from daemon.registry.schemas import Change, CycleReport, StatusReport
from evaluation.gates.verdict import Verdict
from streams.runtime.health import Readiness

MakeAdapter = Callable[..., str]


def cycle(adapter: str, number: int = 1, verdict: Verdict = Verdict.PROMOTE) -> CycleReport:
    return CycleReport(
        cycle=number,
        adapter=adapter,
        champion="base",
        verdict=verdict,
        reason="The candidate is better than the champion.",
        champion_success=0.0,
        candidate_success=0.3,
        tasks=150,
        gates=(),
        seconds=200.0,
    )


async def figures(serving: httpx.AsyncClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    text = (await serving.get("/metrics")).text
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def test_status_says_what_serves_and_that_the_store_does_not_answer(serving: httpx.AsyncClient) -> None:
    status = StatusReport.model_validate((await serving.get("/status")).json())
    assert (status.alias, status.champion, status.previous, status.anchor) == ("assistant", "base", "base", "base")
    assert status.served == "base"
    assert status.served_models is not None
    assert "base" in status.served_models
    assert status.store is None
    assert status.cycles == ()
    assert (status.retrain, status.bootstrap) == ((), "127.0.0.1:9")


async def test_a_role_with_an_engine_alone_is_alive_and_not_ready(serving: httpx.AsyncClient) -> None:
    assert (await serving.get("/healthz")).status_code == 200
    answer = await serving.get("/readyz")
    assert answer.status_code == 503
    assert set(Readiness.model_validate(answer.json()).reasons) == {"store", "log"}


async def test_a_cycle_a_promotion_and_a_rollback_appear_in_status_history_and_metrics(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    report = cycle(adapter)
    assert (await serving.post("/cycles", json=report.model_dump(mode="json"))).is_success
    promotion = {"digest": adapter, "reason": "p = 0.001", "actor": "learner"}
    promoted = Change.model_validate((await serving.post("/promote", json=promotion)).json())
    status = StatusReport.model_validate((await serving.get("/status")).json())
    assert (status.champion, status.previous, status.served) == (adapter, "base", promoted.to_name)
    assert status.cycles == (report,)
    seen = await figures(serving)
    assert seen["ratchet_active_adapter"] == [({"adapter": adapter, "served": promoted.to_name}, 1)]

    change = Change.model_validate(
        (await serving.post("/rollback", json={"reason": "complaints", "actor": "anna"})).json()
    )
    assert (change.from_name, change.to_name) == (promoted.to_name, "base")
    assert change.seconds >= 0
    history = [AuditEntry.model_validate(entry) for entry in (await serving.get("/history")).json()]
    assert history == registry.audit.read()
    assert [
        (entry.action, entry.actor) for entry in history if entry.action in (Action.PROMOTED, Action.ROLLED_BACK)
    ] == [
        (Action.PROMOTED, "learner"),
        (Action.ROLLED_BACK, "anna"),
    ]
    assert len((await serving.get("/history", params={"limit": 2})).json()) == 2
    seen = await figures(serving)
    assert seen["ratchet_cycles_total"] == [({}, 1)]
    assert seen["ratchet_gate_verdicts_total"] == [({"verdict": "PROMOTE"}, 1)]
    assert seen["ratchet_promotions_total"] == seen["ratchet_rollbacks_total"] == [({}, 1)]
    assert seen["ratchet_active_adapter"] == [({"adapter": "base", "served": "base"}, 1)]


async def test_a_change_that_is_not_allowed_is_a_conflict_with_its_reason(
    serving: httpx.AsyncClient, make_adapter: MakeAdapter
) -> None:
    unknown = {"digest": "f" * 64, "reason": "I like it", "actor": "anna"}
    response = await serving.post("/promote", json=unknown)
    assert response.status_code == 409
    assert "is not known and cannot become serving" in response.json()["error"]["message"]
    response = await serving.post("/rollback", json={"reason": "complaints", "actor": "anna"})
    assert response.status_code == 409
    assert "nothing to roll back: base already serves" in response.json()["error"]["message"]
    # The promotion alone: where nothing was tried, nothing failed.
    assert (await figures(serving))["ratchet_promotion_failures_total"] == [({}, 1)]


@pytest.mark.parametrize(
    "body",
    [
        {"digest": "short", "reason": "r", "actor": "a"},
        {"digest": "f" * 64, "reason": "", "actor": "a"},
        {"digest": "f" * 64, "reason": "r", "actor": "a", "force": True},
    ],
)
async def test_a_request_with_a_typo_is_refused(body: dict[str, object], serving: httpx.AsyncClient) -> None:
    response = await serving.post("/promote", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")
