"""What roles of two versions read of each other: a change that an older role would refuse has a new number."""

import hashlib
import json
from typing import Any

import pytest
from pydantic import JsonValue, TypeAdapter

from ratchet_client.events import EVENT
from streams.branch_events import RESULT, BranchRequest
from streams.calls.records import ANY_CALL_RECORD
from streams.otlp.records import ANY_RECORD
from streams.schema_versions import CALLS, EVENTS

# After a change: raise EVENTS or CALLS of `streams.schema_versions`, have older numbers read as well, and write the
# fingerprint that the test shows beside the new number.
FINGERPRINTS: dict[str, tuple[TypeAdapter[Any], int, str]] = {
    "events": (EVENT, EVENTS, "2: f5919cc018e2ef80"),
    "branch requests": (TypeAdapter(BranchRequest), EVENTS, "2: 1c33982890332da5"),
    "branch results": (RESULT, EVENTS, "2: 95170cffbab3b1f7"),
    "calls": (ANY_CALL_RECORD, CALLS, "1: 3775fe83c558932b"),
    "spans": (ANY_RECORD, CALLS, "1: 581861dd0bced2cc"),
}


def without_prose(schema: JsonValue) -> JsonValue:
    """The JSON schema without titles and descriptions, which do not matter to a reader."""
    if isinstance(schema, list):
        return [without_prose(each) for each in schema]
    if isinstance(schema, dict):
        prose = {name for name in ("title", "description") if isinstance(schema.get(name), str)}
        return {name: without_prose(value) for name, value in schema.items() if name not in prose}
    return schema


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_changed_record_has_a_new_number(name: str) -> None:
    adapter, number, fingerprint = FINGERPRINTS[name]
    document = json.dumps(without_prose(adapter.json_schema()), sort_keys=True)
    assert f"{number}: {hashlib.sha256(document.encode()).hexdigest()[:16]}" == fingerprint
