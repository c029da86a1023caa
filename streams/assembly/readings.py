"""The chats of calls that wait to be assembled: a call is read when it comes, and not again when it is assembled."""

import threading
from collections import OrderedDict

from streams.assembly.captured import chats_of
from streams.calls.chat import Chat
from streams.calls.faces import Earlier
from streams.calls.records import CapturedCall

MOST_CHARACTERS = 16 * 2**20


class Readings:
    """The newest chats, of calls of at most `most` characters together. What is not here is read again. Thread-safe."""

    def __init__(self, most: int = MOST_CHARACTERS) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[list[Chat], int]] = OrderedDict()
        self._characters = 0
        # Never held while a call is read: that may wait for the state.
        self._lock = threading.Lock()

    def read(self, call: CapturedCall, earlier: Earlier) -> list[Chat]:
        """The chats of a call that comes, kept for `take`. Raises `AbsentContentError`; that is not kept.

        What cannot be read yet may be later, when the response that it continues has come.
        """
        chats, size = chats_of(call, earlier), len(call.request) + len(call.reply)
        with self._lock:
            self._drop(call.record_id)
            self._kept[call.record_id] = chats, size
            self._characters += size
            while self._characters > self._most:
                self._drop(next(iter(self._kept)))
        return chats

    def take(self, call: CapturedCall, earlier: Earlier) -> list[Chat]:
        """The chats of a call that is assembled; they are kept no longer. Raises `AbsentContentError`."""
        with self._lock:
            kept = self._drop(call.record_id)
        return chats_of(call, earlier) if kept is None else kept

    def _drop(self, record_id: str) -> list[Chat] | None:
        chats, size = self._kept.pop(record_id, (None, 0))
        self._characters -= size
        return chats
