"""A whole cycle of one group: its members' episodes alone are learned from, and what wins serves them alone."""

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from daemon.learning.cycle import run_cycle
from daemon.learning.loop import Loop, open_loop
from daemon.learning.practice import Practice
from daemon.learning.why import why
from daemon.registry.audit import Action
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.roles import Role
from daemon.serving.control_client import ControlClient
from daemon.serving.passing import ADAPTER
from daemon.supervisor import Supervisor
from evaluation.gates.verdict import Verdict
from learners.settings import PracticeSettings
from learners.snapshots import read_trajectories
from learners.stored_rows import read_rows
from ratchet_client.messages import user
from streams.trust.groups import AdapterGroup, AdapterSettings, home_of
from tests.daemon.learning.test_cycle import DARK, QUICK, dark_settings, demonstrate
from tests.waiting import eventually

ADAPTERS = AdapterSettings(groups={name: AdapterGroup(tenants=(name,)) for name in ("acme", "other")})
OURS, THEIRS, NOBODYS = 12, 3, 2


async def answered_by(loop: Loop, principal: str) -> str:
    """The name of the adapter that answers a call for a principal."""
    messages = [message.model_dump(exclude_none=True) for message in DARK.opening((user("It is dark. You are at 0."),))]
    asked = {"model": str(loop.settings.serving.alias), "messages": messages, "max_tokens": 2}
    headers = {"x-ratchet-principal": principal, "x-ratchet-capture": "off"}
    async with httpx.AsyncClient(base_url=loop.settings.control_url, timeout=60) as client:
        answer = await client.post("/v1/chat/completions", json=asked, headers=headers)
    assert answer.is_success, answer.text
    return answer.headers[ADAPTER.decode()]


async def practise(loop: Loop) -> int:
    """Practise a round, and wait until it is stored; the number of its episodes."""
    practice = PracticeSettings(enabled=True, tasks=2, samples=2)
    learner = loop.settings.learner.model_copy(update={"practice": practice})
    practising = Practice(replace(loop, settings=loop.settings.model_copy(update={"learner": learner})))
    played = await practising.play_round()
    practising.close()
    assert played is not None
    assert played.failures == []

    async def is_stored() -> bool:
        return (await loop.store.status()).practice.episodes == played.episodes

    await eventually(is_stored)
    return played.episodes


async def practised_by(loop: Loop, group: str) -> set[str]:
    """The adapters of whose practice a snapshot of the group would have steps."""
    rows = await read_rows(loop.store, None, 100, members=ADAPTERS.members(group))
    return {row["adapter"] for row in rows.practised_steps}


@pytest.mark.nightly
@pytest.mark.usefixtures("faulty_environments")
async def test_a_cycle_of_a_group_trains_on_its_own_rows_and_promotes_for_its_own_calls(
    tiny_base: Path, tmp_path: Path
) -> None:
    settings = dark_settings(tmp_path, adapters=ADAPTERS)
    async with (
        Supervisor(settings, tiny_base, (Role.RECORD, Role.SERVE)) as supervisor,
        open_loop(supervisor.settings, tiny_base) as everyone,
        ControlClient(settings.control_url, group="acme") as control,
    ):
        acme = everyone.of_group("acme", control)
        await asyncio.to_thread(demonstrate, everyone, OURS, "acme/anna")
        await asyncio.to_thread(demonstrate, everyone, THEIRS, "other/ben", OURS)
        await asyncio.to_thread(demonstrate, everyone, NOBODYS, "carla", OURS + THEIRS)

        async def is_trusted() -> bool:
            return sum((await everyone.store.status()).trusted.values()) == OURS + THEIRS + NOBODYS

        await eventually(is_trusted)
        report = await run_cycle(acme, QUICK, lambda *_: None)
        assert (report.verdict, report.champion) == (Verdict.PROMOTE, BASE), report.reason

        status = await control.status()
        served = {group.name: (group.champion, group.alias) for group in status.groups}
        assert served == {
            "": (BASE, "assistant"),
            "acme": (report.adapter, "assistant-acme"),
            "other": (BASE, "assistant-other"),
        }
        assert (await answered_by(acme, "acme/zoe")).endswith(report.adapter[:12])
        assert [await answered_by(acme, name) for name in ("other/ben", "carla")] == ["base", "base"]
        assert await practise(acme) == 4
        practised = {name: await practised_by(everyone, name) for name in served}
        assert practised == {"": set(), "acme": {status.served}, "other": set()}

    home = home_of(tmp_path, "acme")
    provenance = why("champion", acme.registry, acme.adapters, acme.provenance())
    assert (provenance.adapter, provenance.principals) == (report.adapter, {"acme/anna": OURS})
    assert (provenance.inherited, provenance.snapshot.episodes) == ({}, {"expert": OURS})
    (snapshot,) = (home / "snapshots").iterdir()
    assert snapshot.name == provenance.snapshot.snapshot_id
    assert {each for one in read_trajectories(snapshot) for each in one.principals} == {"acme/anna"}
    assert Action.PROMOTED in {entry.action for entry in acme.registry.audit.read()}
    for other in (tmp_path, home_of(tmp_path, "other")):
        assert Registry(other).audit.read() == []
        assert not [each for each in ("snapshots", "adapters") if (other / each).exists()]
