"""A store's file that is gone is made again from what the log still holds."""

import signal
from pathlib import Path

import pytest

from ratchet_client.ids import uuid7
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from tests.crash.stage import AGENTS, on_stage, played


@pytest.mark.nightly
def test_a_writer_whose_database_is_lost_reads_the_log_from_its_beginning(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, session_timeout_s=2, partitions=2, group_prefix=uuid7())
        with on_stage(kafka, tmp_path, played(training=2), loads=(AGENTS,), batches=3, pause_s=0.2) as stage:
            for victim in stage.victims:
                victim.start()
            stage.wait_until("everything is stored and branched", stage.drained)
            assert stage.recorder.end(signal.SIGTERM) == 0
            stage.store.path.unlink()
            stage.recorder.start()
            stage.wait_until("everything is stored again", stage.drained)
            assert stage.findings() == []
