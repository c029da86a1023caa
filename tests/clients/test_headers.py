"""Headers and receipts: what the gateway reads is what the agent said, and no value of an agent's breaks its call."""

import asyncio
import logging
from collections.abc import AsyncGenerator

import httpx
import pytest

from ratchet_client.headers import episode_headers
from ratchet_client.receipts import collected_receipts, note_receipt, note_receipt_async, receipt_of
from streams.calls.labels import read_labels

STATE = "sha256:" + "0" * 64


def answer(receipt: str | None) -> httpx.Response:
    return httpx.Response(200, headers={} if receipt is None else {"X-Ratchet-Receipt": receipt})


def test_the_gateway_reads_every_label() -> None:
    headers = episode_headers(
        episode="e-1",
        conversation="c-1",
        environment="shop",
        task="orders/17",
        seed=-3,
        state=STATE,
        principal="tenant/user",
        agent="assistant",
    )
    labels = read_labels(headers, {})
    assert labels.model_dump() == {
        "episode": "e-1",
        "conversation": "c-1",
        "environment": "shop",
        "task": "orders/17",
        "seed": -3,
        "state": STATE,
        "principal": "tenant/user",
        "agent": "assistant",
    }


def test_what_is_not_given_is_no_header() -> None:
    assert episode_headers() == {}
    assert episode_headers(episode=" ", seed=0) == {"x-ratchet-seed": "0"}
    assert episode_headers(capture=False) == {"x-ratchet-capture": "off"}


@pytest.mark.parametrize("value", ["Küche", "two\nlines", "a\r\nx-ratchet-principal: another"])
def test_a_value_that_no_header_can_hold_is_left_out_and_not_logged(
    value: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        headers = episode_headers(episode="e-1", task=value)
    assert headers == {"x-ratchet-episode": "e-1"}
    assert "x-ratchet-task is left out" in caplog.text
    assert value not in caplog.text
    httpx.Request("GET", "http://127.0.0.1", headers=headers)


def test_a_value_that_cannot_be_read_or_is_too_long_is_left_out_and_breaks_no_call() -> None:
    assert episode_headers(episode="e-1", task="t" * 513, seed=10**5000) == {"x-ratchet-episode": "e-1"}


def test_a_generator_that_collects_may_be_closed_by_another_task() -> None:
    async def collecting() -> AsyncGenerator[None]:
        with collected_receipts():
            yield

    async def begin(generator: AsyncGenerator[None]) -> None:
        await anext(generator)

    async def both() -> None:
        generator = collecting()
        await asyncio.create_task(begin(generator))
        await generator.aclose()

    asyncio.run(both())


def test_a_receipt_is_read_from_a_response_or_from_its_headers() -> None:
    assert receipt_of(answer("r.1")) == receipt_of(answer("r.1").headers) == "r.1"
    assert receipt_of(answer(None)) is None


def test_receipts_are_collected_inside_only() -> None:
    note_receipt(answer("before"))
    with collected_receipts() as receipts:
        for receipt in ("first", None, "second"):
            note_receipt(answer(receipt))
    note_receipt(answer("after"))
    assert receipts == ["first", "second"]


async def test_receipts_of_episodes_side_by_side_are_not_mixed_up() -> None:
    async def play(name: str) -> list[str]:
        with collected_receipts() as receipts:
            for number in range(3):
                # A framework may make its calls in tasks of its own.
                await asyncio.create_task(note_receipt_async(answer(f"{name}-{number}")))
                await asyncio.sleep(0)
        return receipts

    played = await asyncio.gather(*map(play, "abc"))
    assert played == [[f"{name}-{number}" for number in range(3)] for name in "abc"]
