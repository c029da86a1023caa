"""The newest responses, so that a request may continue one by its id. They are lost with the process."""

from collections import OrderedDict

from ratchet_client.messages import Message, Messages

MOST_RESPONSES = 1024


class KnownResponses:
    """The messages up to and with each response, instructions not among them. Belongs to one event loop."""

    def __init__(self, most: int = MOST_RESPONSES) -> None:
        self._most = most
        self._known: OrderedDict[str, Messages] = OrderedDict()

    def add(self, identity: str, messages: Messages, said: Message) -> None:
        self._known[identity] = (*messages, said)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def get(self, identity: str) -> Messages | None:
        """The messages, None for a response that is not known."""
        if identity in self._known:
            self._known.move_to_end(identity)
        return self._known.get(identity)
