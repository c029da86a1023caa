"""What the documents tell agents to send is what the record role reads."""

import re
from pathlib import Path

from ratchet_client.events import EVENT, OutcomeEvent, StepEvent
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from tests.builders.published import read

ROOT = Path(__file__).parents[2]


def test_the_documented_events_are_events_in_the_newest_schema() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "events.md").read_text(), re.DOTALL)
    step, outcome = (EVENT.validate_json(block) for block in blocks if '"kind"' in block)
    assert isinstance(step, StepEvent)
    assert isinstance(outcome, OutcomeEvent)
    assert step.schema_version == outcome.schema_version == 2
    assert step.observation[0].tool_call_id == step.action.calls[0].id


def test_the_snippet_of_the_producers_document_publishes_an_episode(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "producer.md").read_text(), re.DOTALL)
    with EmbeddedBroker() as broker:
        create_topics(KafkaSettings(bootstrap=broker.bootstrap, partitions=1))
        here = {"kafka-1:9092,kafka-2:9092": broker.bootstrap, "/var/spool/ratchet": str(tmp_path)}
        for documented, own in here.items():
            assert documented in snippet
            snippet = snippet.replace(documented, own)
        exec(snippet, {})
        first, second, outcome = (
            EVENT.validate_json(value) for _, value, _ in read(broker.bootstrap, "ratchet.events")
        )
    assert isinstance(first, StepEvent)
    assert isinstance(second, StepEvent)
    assert isinstance(outcome, OutcomeEvent)
    assert second.messages == (*first.messages, first.action, *first.observation)
    assert second.tools == first.tools != ()
