import json

from daemon.serving.response_ids import ResponseId

EVENT = b'data: {"type": "response.created", "response": {"id": "resp_1", "output": []}}\n\n'
LATER = b'data: {"type": "response.output_item.added", "item": {"id": "msg_2"}}\n\n'


def found(*parts: bytes) -> list[str | None]:
    looking = ResponseId()
    return [looking.find(part) for part in parts]


def test_the_first_id_is_the_responses_own_and_is_told_once() -> None:
    assert found(EVENT, LATER) == ["resp_1", None]
    assert found(json.dumps({"id": "resp_3", "output": [{"id": "msg_4"}]}).encode()) == ["resp_3"]


def test_an_id_that_is_cut_between_parts_is_found_when_its_end_has_come() -> None:
    cut = EVENT.index(b"sp_1")
    assert found(EVENT[:cut], EVENT[cut:], LATER) == [None, "resp_1", None]


def test_an_id_far_behind_the_beginning_is_not_the_responses() -> None:
    assert found(b" " * 5000, EVENT) == [None, None]
