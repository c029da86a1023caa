"""Drills of the log and the store: what is published, and what becomes of it."""

import asyncio
import os
import subprocess
import time
from collections.abc import Generator

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from daemon.registry.registry import Registry
from ratchet_client.events import Actor, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import user
from streams.kafka.clients import admin, producer
from streams.kafka.retention import delete_before, ends_of
from streams.sandboxes.pool import SandboxPool
from tests.builders.adapters import add_random_adapter
from tests.builders.branch_requests import played
from tests.builders.episodes import episode
from tests.kafka_node import KafkaNode
from tests.ops.drill.drill import drill
from tests.ops.drill.page import Page
from tests.ops.drill.system import System
from tests.waiting import until

UNLIMITED = {"ADMISSION__QUOTA": '{"near_duplicates": 1000000}'}
_QUIET_S, _EVERY_S = 1500, 15
_BURST = 60_000


@drill("RatchetStoreDown", ("record", "serve"))
def the_record_role_goes_away(system: System, page: Page) -> Generator[None]:
    system.start("record", "serve")
    yield
    system.kill("record")
    yield
    page.says("Record role away:")
    page.run("ratchet run --roles record")


@drill("RatchetStoreDown", ("record", "serve"))
def the_cluster_hangs(system: System, page: Page) -> Generator[None]:
    system.start("record", "serve")
    yield
    system.pause_broker(True)
    yield
    page.says("Cluster away: bring it back; nothing else is needed.")
    system.pause_broker(False)


@drill("RatchetIngestionStalled", ("record", "serve"))
def another_home_reads_in_the_same_group(system: System, page: Page) -> Generator[None]:
    stranger = System(system.folder / "elsewhere", system.base, bootstrap=system.bootstrap)
    try:
        system.start("record", "serve")
        system.publish(episode("first"))
        until(lambda: system.stored() == 2, "what is published is stored")
        yield
        system.kill("record")
        stranger.start("record")
        until(lambda: stranger.stored() == 2, "the other home has all partitions")
        system.start("record")
        system.publish(episode("second"))
        yield
        page.says("Another member of the group")
        stranger.kill("record")
        until(lambda: system.stored() == 4, "all of it is stored here")
    finally:
        stranger.close()


def quiet() -> str:
    """A quarter of an hour, and more, in which nothing waited in the log."""
    now = time.time()
    lines = [f"ratchet:consumer_lag:sum 0 {now - ago:.3f}" for ago in range(_QUIET_S, 0, -_EVERY_S)]
    return "\n".join(["# TYPE ratchet:consumer_lag:sum gauge", *lines, "# EOF", ""])


@drill("RatchetConsumerLag", ("record", "serve"), past=quiet)
def more_comes_at_once_than_can_be_stored(system: System, page: Page) -> Generator[None]:
    system.start("record", "serve")
    values = [(each.episode_id, each.to_json()) for n in range(300) for each in episode(f"busy-{n}")]
    yield
    # A producer alone is no faster than the store where both have the same two cores.
    with system.paused("record"), producer("drill", system.bootstrap, system.kafka.security) as client:
        for _ in range(_BURST // len(values)):
            for key, value in values:
                client.send(system.kafka.events_topic, key=key.encode(), value=value)
        client.flush()
    yield
    page.says("A burst: wait until it is worked off.")


@drill("RatchetDeadLettersRising", ("record", "serve"), looks_back=True)
def a_principal_has_the_wrong_key(system: System, page: Page) -> Generator[None]:
    key, name = "the key that the shop signs with", "ADMISSION__PRINCIPALS"
    system.settings[name] = '{"shop": "the key of the year before"}'
    system.start("record", "serve")
    yield
    steps = [
        each.model_copy(update={"principal": "shop"})
        for number in range(5)
        for each in episode(f"episode-{number}")
        if isinstance(each, StepEvent)
    ]
    system.publish(steps, key.encode())
    yield
    page.run("ratchet dead-letters list --limit 20")
    page.run("ratchet dead-letters list --verdict quarantine")
    assert "the signature is not the principal's" in system.command("dead-letters", "list", "--json").stdout
    page.says("Ratchet has a wrong key: correct it in `admission.principals`, and restart the record role")
    system.settings[name] = f'{{"shop": "{key}"}}'
    system.kill("record")
    system.start("record")
    page.run('ratchet dead-letters replay --error "the signature is not" --dry-run')
    page.run('ratchet dead-letters replay --error "the signature is not"')
    until(lambda: system.stored() == len(steps), "what was refused is stored")


@drill("RatchetLogGaps", ("record", "serve"), looks_back=True)
def the_log_forgets_while_the_record_role_is_away(system: System, page: Page) -> Generator[None]:
    node = KafkaNode(system.folder / "kafka")
    node.start()
    try:
        system.bootstrap = node.bootstrap
        system.start("record", "serve")
        system.publish(episode("before"))
        until(lambda: system.stored() == 2, "what is published is stored")
        yield
        system.kill("record")
        system.publish(episode("lost"))
        topic = system.kafka.events_topic
        delete_before(system.kafka, {place: end for place, end in ends_of(system.kafka).items() if place[0] == topic})
        system.publish(episode("after"))
        system.start("record")
        yield
        page.says("Producers with a spool send again what was not acknowledged")
        system.publish(episode("lost"))
        until(lambda: system.stored() == 6, "what was sent again is stored")
        page.says("Raise the topics' retention")
        longer = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": str(30 * 24 * 3_600_000)})
        with admin("drill", system.bootstrap, system.kafka.security) as client:
            client.alter_configs([longer])
    finally:
        node.kill()


@drill("RatchetStatesDropped", ("record", "serve", "branch"))
def production_has_another_version(system: System, page: Page) -> Generator[None]:
    system.settings |= UNLIMITED | {"BRANCHING__SAMPLES": "0"}
    system.engine.start()
    system.start("record", "serve", "branch")
    yield
    for number in range(3):
        system.publish(asyncio.run(walked(f"walk-{number}", said="You walk. The floor is wet.")))
    yield
    page.says("`diverged`: production's environment has another version")
    for number in range(3, 9):
        system.publish(asyncio.run(walked(f"walk-{number}")))


async def walked(name: str, said: str = "") -> list[StepEvent | OutcomeEvent]:
    """A demonstration in a sandbox, as an expert's episode of production; its first action was answered with `said`."""
    task = Task(environment="faulty_sound", task_id="walk/train/3")
    async with SandboxPool("faulty_sound") as pool:
        request = await played(pool, task)
    events: list[StepEvent | OutcomeEvent] = []
    messages = request.opening
    for number, step in enumerate(request.steps):
        observation = (user(said),) if said and number == 0 else step.observation
        recorded = StepEvent(
            episode_id=name,
            step=number,
            agent="assistant",
            principal="shop",
            task=task,
            messages=messages,
            action=step.action,
            observation=observation,
            done=number == len(request.steps) - 1,
            actor=Actor(kind="expert"),
        )
        events.append(recorded)
        messages = (*messages, step.action, *observation)
    return [*events, OutcomeEvent(episode_id=name, verifier="game", success=True, score=1.0)]


@drill("RatchetChampionWorse", ("record", "serve"))
def the_champion_fails_where_its_predecessor_did_not(system: System, page: Page) -> Generator[None]:
    system.settings |= UNLIMITED
    registry = Registry(system.home)
    first, second = (add_random_adapter(system.base, seed, within=registry) for seed in (1, 2))
    names = []
    for adapter in (first, second):
        names.append(registry.name(adapter, "serve", "to serve"))
        registry.promote(adapter, "drill", "a drill")
    system.engine.start()
    system.start("record", "serve")
    yield
    for name, success in zip(names, (True, False), strict=True):
        for number in range(35):
            *steps, outcome = episode(f"{name}-{number}", actor="policy", success=success)
            said_by = [step.model_copy(update={"actor": Actor(kind="policy", adapter=name)}) for step in steps]
            system.publish([*said_by, outcome])
    yield
    page.run('ratchet rollback --reason "success fell in production"')
    page.run('ratchet resume --reason "looked into"')
    assert registry.refs().champion == first


@drill("RatchetDiskFilling", ("record", "serve"))
def a_log_file_fills_the_disk(system: System, page: Page) -> Generator[None]:
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1150m", "drill", system.home]).returncode
    ):
        pytest.skip("a small disk cannot be mounted here: run this as root")
    try:
        system.start("record", "serve")
        yield
        with system.log_file("record").open("ab") as output:
            output.write(b"\n" * 200_000_000)
        yield
        page.says("`logs/*.log` are appended to and not rotated: rotate them")
        os.truncate(system.log_file("record"), 0)
    finally:
        subprocess.run(["umount", "-l", system.home], check=True)
