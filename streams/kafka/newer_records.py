"""Records that a newer version of Ratchet wrote for a role of an older one: good, and not to be refused.

Roles of two versions meet on the topics between them while an installation is upgraded role by role. What a role cannot
read for its schema's number waits in the log until the role is upgraded. Agents write to `ratchet.events` too, so that
a number proves nothing there.
"""

from pydantic import BaseModel, Field, StrictInt, ValidationError

from streams.errors import NewerRecordError
from streams.kafka.records import Received


class _Numbered(BaseModel):
    """Of a record nothing but its schema."""

    schema_version: StrictInt = Field(alias="schema")


def refuse_newer(received: Received, known: int) -> None:
    """Raise `NewerRecordError` for a record that could not be read and names a schema newer than `known`."""
    try:
        schema = _Numbered.model_validate_json(received.value or b"").schema_version
    except ValidationError:
        return
    if schema > known:
        place = f"{received.topic}/{received.partition}/{received.offset}"
        raise NewerRecordError(
            f"the record {place} has schema {schema}, and this version reads {known} at most: upgrade this role to the"
            " version of the role that wrote it. Until then what this role reads waits in the log. If no role wrote it,"
            " delete the records up to it with kafka-delete-records"
        )
