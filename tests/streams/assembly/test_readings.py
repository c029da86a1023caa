"""A captured call is read once, on its way in, however much comes between that and its assembly."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.assembly import captured
from streams.assembly.readings import Readings
from streams.calls.absence import AbsentContentError
from streams.calls.chat import Chat
from streams.calls.faces import read_call
from streams.calls.records import CapturedCall
from tests.builders.captured import Desk, conversation, episodes

TURNS = [("One.", "and?"), ("Two.", "so?"), ("Three.", "bye")]
SAID = ["One.", "Two.", "Three."]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The receipts of the calls that are read, each time that they are."""
    receipts: list[str] = []
    original = read_call

    def counted(call: CapturedCall, *rest: object) -> list[Chat]:
        receipts.append(call.receipt)
        return original(call, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(captured, "read_call", counted)
    return receipts


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def test_a_call_is_read_once(desk: Desk, read: list[str]) -> None:
    calls = conversation("hello", TURNS)
    assert episodes(desk.take(*calls, *calls, wait=120.0)) == {calls[0].receipt: SAID}
    assert read == [call.receipt for call in calls]


def test_after_a_restart_it_is_read_again(desk: Desk, read: list[str]) -> None:
    calls = conversation("hello", TURNS)
    desk.take(*calls[:2])
    desk.restart()
    assert episodes(desk.take(calls[2], wait=120.0)) == {calls[0].receipt: SAID}
    assert sorted(read) == sorted(call.receipt for call in (*calls, *calls[:2]))


def test_what_waits_too_long_or_cannot_be_read_yet_is_not_kept(read: list[str]) -> None:
    first, second, broken = (conversation(name, TURNS[:1])[0] for name in ("a", "b", "c"))
    broken = broken.model_copy(update={"reply": "{"})
    readings = Readings(most=len(first.request) + len(first.reply) + 10)
    kept = readings.read(first, lambda _: None)
    assert readings.take(first, lambda _: None) is kept
    readings.read(first, lambda _: None)
    readings.read(second, lambda _: None)
    assert len(read) == 3
    readings.take(second, lambda _: None)
    assert len(read) == 3
    assert readings.take(first, lambda _: None) == kept
    assert len(read) == 4
    for ask in (readings.read, readings.take):
        with pytest.raises(AbsentContentError):
            ask(broken, lambda _: None)
    assert len(read) == 6
