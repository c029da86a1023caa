"""A whole canary: the serve role, the real inference server, and a real store in which outcomes arrive."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CanaryEnd, StatusReport
from daemon.serving.settings import ShadowSettings
from evaluation.settings import CanarySettings
from streams.store.api import build_api
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from tests.builders.canaried import ask, judged
from tests.builders.episodes import HOLDOUT, KAFKA
from tests.builders.stored import Log
from tests.daemon.conftest import serve_role
from tests.served import served
from tests.waiting import eventually

MakeAdapter = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(StoreSettings(path=tmp_path / "store.duckdb"), HOLDOUT, KAFKA)
    yield store
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solves", "end", "champion"),
    [
        ("base", CanaryEnd.ROLLED_BACK, False),
        pytest.param("candidate", CanaryEnd.PROMOTED, True, marks=pytest.mark.nightly),
    ],
)
async def test_outcomes_decide_which_adapter_serves(
    solves: str,
    end: CanaryEnd,
    champion: bool,
    inference_url: str,
    registry: Registry,
    store: Store,
    make_adapter: MakeAdapter,
) -> None:
    adapter, log = make_adapter(1), Log(store)
    canary, shadow = CanarySettings(share=0.5, judge_s=0.2), ShadowSettings(share=1.0)
    with served(build_api(store), lifespan="off") as address:
        async with serve_role(registry, inference_url, address, canary=canary, shadow=shadow) as client:
            promotion = {"digest": adapter, "reason": "it passed its gates", "actor": "learner"}
            change = (await client.post("/promote", json=promotion)).json()
            assert (change["to_adapter"], change["share"]) == (adapter, 0.5)
            repeated = await client.post("/promote", json=promotion)
            assert repeated.status_code == 409

            sides = {name: await ask(client, name) for name in (f"episode-{number}" for number in range(60))}
            candidate = change["to_name"]
            assert set(sides.values()) == {"base", candidate}
            mid_episode = next(name for name, side in sides.items() if side == candidate)
            goes_on = ({"role": "assistant", "content": "A"}, {"role": "user", "content": "B"})
            assert await ask(client, mid_episode, *goes_on) == candidate
            status = StatusReport.model_validate((await client.get("/status")).json())
            assert status.canary is not None
            assert (status.canary.adapter, status.canary.ended) == (adapter, None)
            assert status.canary.candidate_requests > 0
            metrics = (await client.get("/metrics")).text
            assert "ratchet_canary_share 0.5" in metrics
            assert 'ratchet_shadow_calls{result="copies"}' in metrics

            winner = "base" if solves == "base" else candidate
            for name, side in sides.items():
                log.publish(*judged(name, side, side == winner))

            async def has_ended() -> bool:
                report = StatusReport.model_validate((await client.get("/status")).json())
                return report.canary is not None and report.canary.ended is not None

            await eventually(has_ended, "the canary ends")
            status = StatusReport.model_validate((await client.get("/status")).json())
            assert status.canary is not None
            assert status.canary.ended is end
            assert (status.champion, status.served) == ((adapter, candidate) if champion else (BASE, "base"))
            assert await ask(client, mid_episode, *goes_on) == status.served
            assert f'ratchet_canaries_total{{end="{end.value}"}} 1.0' in (await client.get("/metrics")).text
    assert registry.state(adapter) is (State.SERVING if champion else State.ROLLED_BACK)
    assert registry.audit.verify() == len(registry.audit.read())
