"""What the gateway measures of calls, and that it stays bounded."""

import pytest
from prometheus_client import CollectorRegistry

from daemon.serving.alias import Alias
from daemon.serving.call_metrics import MOST_ADAPTERS, CallMetrics, Failure, Passage
from tests.daemon.serving.upstream import CHAT, bench, stream, whole

CALL = "/v1/chat/completions"
LOST = b'{"error": {"message": "The model `ratchet-1` does not exist.", "code": "model_not_found"}}'


@pytest.mark.parametrize(
    ("answer", "asked", "cause"),
    [
        (whole(500, b'{"error": {"message": "out of memory"}}'), {}, Failure.SERVER_ERROR),
        (whole(404, LOST), {}, Failure.LOST_ADAPTER),
        (stream(b"data: {}\n\n", ends=False), {"stream": True}, Failure.BROKEN_OFF),
        ([], {}, Failure.UNREACHABLE),
        (whole(400, b'{"error": {"message": "too many tokens"}}'), {}, None),
        (whole(200, b"{}"), {}, None),
    ],
)
async def test_a_call_that_failed_is_counted_by_its_cause(
    answer: list[bytes], asked: dict[str, object], cause: Failure | None
) -> None:
    registry = CollectorRegistry()
    async with bench(answer) as gateway:
        gateway.gateway.calls = CallMetrics(gateway.alias, registry)
        await gateway.client.post(CALL, json=CHAT | asked)
    for each in Failure:
        counted = registry.get_sample_value("ratchet_gateway_upstream_errors_total", {"cause": each.value})
        assert counted == float(each is cause)
    assert registry.get_sample_value("ratchet_gateway_call_seconds_count", {"served": "ratchet-1"}) == 1
    assert registry.get_sample_value("ratchet_gateway_in_flight", {"served": "ratchet-1"}) == 0


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_tokens_are_read_wherever_the_parts_of_a_reply_end(cut: int) -> None:
    reply = b'{"usage":{"input_tokens":1200,"output_tokens":1}} {"usage": {"output_tokens": 34}}'
    passage = Passage()
    for part in (reply[:cut], reply[cut:]):
        passage.add(part)
    assert (passage.input_tokens, passage.output_tokens) == (1200, 34)


def test_what_a_model_says_about_tokens_is_not_counted() -> None:
    passage = Passage()
    passage.add(b'{"content": "{\\"prompt_tokens\\": 5}", "usage": {"prompt_tokens_details": {"cached_tokens": 3}}}')
    assert passage.input_tokens is None


def test_only_adapters_that_answered_lately_have_series() -> None:
    registry = CollectorRegistry()
    calls = CallMetrics(Alias("assistant"), registry)
    for number in range(3 * MOST_ADAPTERS):
        calls.observe("base", Passage())
        calls.observe(f"ratchet-{number}", Passage(input_tokens=1))
    served = {
        sample.labels["served"]
        for family in registry.collect()
        for sample in family.samples
        if "served" in sample.labels
    }
    last = range(3 * MOST_ADAPTERS - (MOST_ADAPTERS - 1), 3 * MOST_ADAPTERS)
    assert served == {"base", *(f"ratchet-{number}" for number in last)}
    assert registry.get_sample_value("ratchet_gateway_call_seconds_count", {"served": "base"}) == 3 * MOST_ADAPTERS
