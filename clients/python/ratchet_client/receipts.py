"""The receipts that the gateway gives with its replies: feedback names a call by its receipt.

They are in a header, which each SDK shows in its own way. Where it shows none, its HTTP client has a hook that takes
`note_receipt` or `note_receipt_async`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Protocol

from ratchet_client.headers import PREFIX

RECEIPT_HEADER = f"{PREFIX}receipt"

_COLLECTED: ContextVar[list[str] | None] = ContextVar("collected_receipts", default=None)


class HasHeaders(Protocol):
    """A response of httpx, requests or aiohttp, or a raw response of the openai SDK."""

    @property
    def headers(self) -> Mapping[str, str]: ...


def receipt_of(reply: HasHeaders | Mapping[str, str]) -> str | None:
    """Return the receipt that came with a reply, or with its headers; None for a call that was not recorded.

    >>> receipt_of({"x-ratchet-receipt": "0199e0a2.0123456789abcdef"})
    '0199e0a2.0123456789abcdef'
    """
    headers = reply if isinstance(reply, Mapping) else reply.headers
    return headers.get(RECEIPT_HEADER)


@contextmanager
def collected_receipts() -> Iterator[list[str]]:
    """The receipts of the replies inside, as they come: of this task or thread, and of the tasks that it starts.

    Only an HTTP client with a hook of this module adds to them.
    """
    receipts: list[str] = []
    token = _COLLECTED.set(receipts)
    try:
        yield receipts
    finally:
        # A generator that another task closes ends in that one's context, in which nothing was set.
        with suppress(ValueError):
            _COLLECTED.reset(token)


def note_receipt(response: HasHeaders) -> None:
    """Add the receipt of `response` to those that are collected here, if any are.

    A hook of `httpx.Client`: `event_hooks={"response": [note_receipt]}`.
    """
    receipts, receipt = _COLLECTED.get(), receipt_of(response)
    if receipts is not None and receipt is not None:
        receipts.append(receipt)


async def note_receipt_async(response: HasHeaders) -> None:
    """Do what `note_receipt` does, as a hook of `httpx.AsyncClient`."""
    note_receipt(response)
