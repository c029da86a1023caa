"""Publishing a retraction and seeing it arrive: it takes the way of every event, so that every reader obeys it.

`ratchet forget` calls it.
"""

import asyncio
import time
from dataclasses import dataclass

from ratchet_client.events import RetractionEvent
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from streams.errors import RetractionError
from streams.kafka.clients import producer
from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.store.queries.retractions import REASON_OF_REFUSAL, STORED_RETRACTION

PATIENCE_S = 60.0
_ACKNOWLEDGE_TIMEOUT_S = 30.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Retraction:
    """A retraction that the store has, under `sequence`."""

    event_id: str
    principal: str
    sequence: int


async def retract(
    kafka: KafkaSettings,
    store: StoreClient,
    event: RetractionEvent,
    key: bytes | None = None,
    patience_s: float = PATIENCE_S,
) -> Retraction:
    """Publish `event`, signed with the principal's or an operator's `key`, and return when the store has it.

    Raises:
        StoreError: the store does not answer; then nothing was published.
        BrokerError: the cluster cannot be reached or does not acknowledge.
        RetractionError: the record role refused the event, or did not get to it within `patience_s`.
    """
    await store.status()
    partition, offset = await asyncio.to_thread(_publish, kafka, event, key)
    position: dict[str, Parameter] = {"topic": kafka.events_topic, "partition": partition, "offset": offset}
    deadline = time.monotonic() + patience_s
    while True:
        stored = await store.query(STORED_RETRACTION, {"event_id": event.event_id})
        if stored.num_rows:
            return Retraction(event.event_id, event.principal, stored["sequence"][0].as_py())
        refused = await store.query(REASON_OF_REFUSAL, position)
        if refused.num_rows:
            raise RetractionError(
                f"the record role refused the retraction: {refused['reason'][0].as_py()}; it must be signed with the "
                "principal's key in admission.principals or with the operator's: give this command the configuration "
                "and the home of the record role"
            )
        if time.monotonic() > deadline:
            raise RetractionError(
                f"the retraction {event.event_id} is in the log, and the store did not get to it within "
                f"{patience_s:.0f} s; it will be obeyed once it does. Look at the store's lag, and ask again then"
            )
        await asyncio.sleep(_POLL_S)


def _publish(kafka: KafkaSettings, event: RetractionEvent, key: bytes | None) -> tuple[int, int]:
    value = event.to_json()
    headers = [] if key is None else [(SIGNATURE_HEADER, sign(key, value).encode())]
    remedy = "nothing is retracted yet: ask again when it is healthy"
    with producer("retraction", kafka.bootstrap, kafka.security, remedy) as client:
        sent = client.send(kafka.events_topic, key=event.principal.encode(), value=value, headers=headers)
        metadata = sent.get(timeout=_ACKNOWLEDGE_TIMEOUT_S)
        return metadata.partition, metadata.offset
