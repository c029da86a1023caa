"""`ratchet forget --erase` with a record role at work: what it stores, its files and its logs, before and after."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.settings import Backend, LakeSettings
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.integration.recording import ROOT, answers, caught_up, pairs, publisher
from tests.integration.test_lake_erasure import PLANTED, holding
from tests.integration.test_privacy import stored_texts
from tests.kept_up import RATCHET, kept_up
from tests.waiting import eventually

SECRETS = ("john.smith@example.com", "ghp_0123456789abcdefghij0123456789abcdef")


@pytest.mark.slow
@pytest.mark.parametrize("backend", Backend)
async def test_forget_erases_from_a_record_role_at_work_and_no_log_or_other_user_sees_content(
    backend: Backend, kafka: KafkaSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home, log, port = tmp_path / "home", tmp_path / "record.log", free_port()
    environment = {
        **os.environ,
        "RATCHET_HOME": str(home),
        "RATCHET_KAFKA": kafka.model_dump_json(),
        "RATCHET_STORE__PORT": str(port),
    }
    if backend is Backend.DUCKLAKE:
        lake: LakeSettings = request.getfixturevalue("lake")
        environment |= {
            "RATCHET_STORE__BACKEND": backend,
            "RATCHET_STORE__LAKE__CATALOG": lake.catalog,
            "RATCHET_STORE__LAKE__DATA": str(lake.data),
        }
    with kept_up(environment, log) as statuses, publisher(kafka) as publish:
        async with StoreClient(f"http://127.0.0.1:{port}") as client:
            await eventually(lambda: answers(client))
            for number, name in enumerate(("stays", "leaves")):
                said = f"tell {PLANTED if name == 'leaves' else 'hello'} to {' '.join(SECRETS)}"
                publish(kafka.events_topic, pairs(episode(name, TASKS[Split.TRAIN][number], action=said)))
            publish(kafka.events_topic, [("bad", json.dumps({"kind": "step", SECRETS[0]: SECRETS[1]}).encode())])
            await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
            await client.query("SELECT 1")
            with pytest.raises(Exception, match="john"):
                await client.query(f"SELECT '{SECRETS[0]}'::INTEGER")
            # What other programs of the machine wait for, the command does in a process of its own.
            command = [*RATCHET, "forget", "--principal", "leaves", "--erase", "--json"]
            told = subprocess.run(  # noqa: ASYNC221
                command, cwd=ROOT, env=environment, capture_output=True, text=True
            )
            assert told.returncode == 0, told.stderr
            report = json.loads(told.stdout)
            assert report["principal"] == "leaves"
            assert report["erasure"]["erasure"]["rows"]["transitions"] == 2
            assert [each["topic"] for each in report["erasure"]["retained"]] == [kafka.events_topic]
            events = await client.query("SELECT DISTINCT episode_id FROM events WHERE episode_id IS NOT NULL")
            assert events["episode_id"].to_pylist() == ["stays"]
    assert statuses[0] == 1  # it ended to be started again
    files = [path for path in home.rglob("*") if path.is_file()]
    assert [path.name for path in files if PLANTED.encode() in path.read_bytes()] == []
    if backend is Backend.DUCKDB:
        assert not [text for text in stored_texts(home / "store.duckdb") if PLANTED in text]
    else:
        assert holding(lake, request.getfixturevalue("postgres")) == []
    assert [path for path in (home, *home.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    written = log.read_text() + told.stderr
    assert "not every record was stored" in written
    assert [value for value in (*SECRETS, PLANTED) if value in written] == []
