"""A record of a newer version waits for the upgrade of the role that reads it; what is damaged does not."""

import json

import pytest

from streams.errors import NewerRecordError
from streams.kafka.newer_records import refuse_newer
from streams.kafka.records import Received


def received(value: bytes | None) -> Received:
    return Received("ratchet.branches", 3, 17, None, value)


def test_a_record_of_a_newer_schema_is_an_error_that_names_it_and_the_remedy() -> None:
    with pytest.raises(NewerRecordError, match=r"ratchet\.branches/3/17 has schema 3.*reads 2 at most: upgrade"):
        refuse_newer(received(json.dumps({"schema": 3, "priority": 1}).encode()), known=2)


@pytest.mark.parametrize("value", [None, b"", b"no JSON", b"[3]", b"{}", b'{"schema": "3"}', b'{"schema": 2}'])
def test_what_names_no_newer_schema_is_for_its_reader_to_refuse(value: bytes | None) -> None:
    refuse_newer(received(value), known=2)
