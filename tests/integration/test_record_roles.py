"""Several record roles, started as a user starts them, over one lake; one of them is killed and another one joins."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from streams.errors import StoreError
from streams.intake.admission import AdmissionSettings
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.store.client import StoreClient
from streams.store.ducklake import connect, folder_of
from streams.store.settings import Backend, LakeSettings, StoreSettings
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, episode
from tests.integration.lake import numbered_in_order_of_commits, rows
from tests.integration.record_roles import RecordRole
from tests.integration.recording import caught_up, publisher, read_all
from tests.waiting import eventually

pytestmark = pytest.mark.slow

PARTITIONS = 6
EPISODES_AT_ONCE = 12
NOT_YET = (httpx.HTTPError, StoreError)
ONE = "tenant/one"
TRUSTED_AT_MOST = 15
QUOTA = QuotaSettings(per_principal=TRUSTED_AT_MOST, near_duplicates=10**6)


@pytest.fixture
def roles(kafka: KafkaSettings, lake: LakeSettings, tmp_path: Path) -> Iterator[list[RecordRole]]:
    """Three record roles of one home, none of which is started."""
    merging = lake.model_copy(update={"merge_s": 1.0})
    store = StoreSettings(backend=Backend.DUCKLAKE, lake=merging, batch=50, batch_s=0.1)
    found = [RecordRole(kafka, store, tmp_path / "home", AdmissionSettings(quota=QUOTA), HOLDOUT) for _ in range(3)]
    yield found
    for role in found:
        role.kill()


@pytest.fixture
def kafka(kafka: KafkaSettings) -> KafkaSettings:
    settings = kafka.model_copy(update={"partitions": PARTITIONS})
    create_topics(settings)
    return settings


def wave(number: int) -> list[tuple[str, bytes]]:
    """Episodes as they are published, half of them of one principal.

    An outcome comes under another key, so that another role may have to store it; so does an event that is sent again.
    """
    found: list[tuple[str, bytes]] = []
    for each in range(EPISODES_AT_ONCE):
        name = f"{number}-{each}"
        *steps, outcome = episode(name)
        told = [step.model_copy(update={"principal": ONE if each % 2 else name}).to_json() for step in steps]
        found += [*((name, step) for step in told), (f"outcome of {name}", outcome.to_json())]
        found += [(f"again {name}", told[0]), (f"no event {name}", b"{")]
    return found


def merged(lake: LakeSettings) -> bool:
    """Whether the lake has fewer files than lie in its folder: those that were merged stay for earlier snapshots."""
    with connect(lake) as store:
        ((files,),) = rows(store, "SELECT count(*) FROM ducklake_list_files('lake', 'events')")
    return int(files) < len([*folder_of(lake).rglob("events/*.parquet")])


async def test_several_record_roles_write_one_lake_although_one_is_killed(
    roles: list[RecordRole], kafka: KafkaSettings, lake: LakeSettings
) -> None:
    first, second, third = roles
    waves = 0
    with publisher(kafka) as publish:
        async with StoreClient(second.url) as client:

            async def all_write(*writers: RecordRole) -> bool:
                """Publish more whenever all is stored, until each of them has stored some."""
                nonlocal waves
                if not await caught_up(client, kafka, kafka.events_topic):
                    return False
                publish(kafka.events_topic, wave(waves))
                waves += 1
                return all(writer.written()[0] for writer in writers)

            first.start()
            second.start()
            await eventually(lambda: all_write(first, second), "two write", errors=NOT_YET)
            first.process.kill()
            third.start()
            await eventually(lambda: all_write(second, third), "two others write", errors=NOT_YET)
            first.start()
            await eventually(lambda: caught_up(client, kafka, kafka.events_topic), "all is stored")
            await eventually(lambda: asyncio.to_thread(merged, lake), "small files are merged")

    names = {f"{number}-{each}" for number in range(waves) for each in range(EPISODES_AT_ONCE)}
    with connect(lake) as store:
        assert rows(store, "SELECT count(*), count(DISTINCT event_id) FROM events") == [
            (3 * len(names), 3 * len(names))
        ]
        assert rows(store, "SELECT count(*) FROM duplicates UNION ALL SELECT count(*) FROM dead_letters") == [
            (len(names),),
            (len(names),),
        ]
        origins = (f'SELECT partition, "offset" FROM {name}' for name in ("events", "duplicates", "dead_letters"))
        ends = end_offsets(kafka.bootstrap, kafka.events_topic)
        assert sorted(rows(store, " UNION ALL ".join(origins))) == [
            (partition, offset) for partition in sorted(ends) for offset in range(ends[partition])
        ]
        assert numbered_in_order_of_commits(store)
        trusted = rows(store, "SELECT principal, episode_id FROM trusted")
        assert sum(principal == ONE for principal, _ in trusted) == TRUSTED_AT_MOST
        refused = rows(store, "SELECT episode_id FROM flags WHERE reason LIKE 'quota: %'")
        assert {name for _, name in trusted} | {name for (name,) in refused} == names
        asked = {bytes(value) for (value,) in rows(store, "SELECT value FROM outbox")}
    assert {value for value, _ in read_all(kafka, kafka.branches_topic)} == asked
