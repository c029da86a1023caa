"""Sessions with the SDKs that agents are written on: the client's headers arrive, receipts are read, feedback decides.

Over the real gateway, a real broker and the roles to the store. The model has random weights.
"""

import asyncio
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from ops.partial_locks import ROOT
from ratchet_client.feedback import send_feedback
from ratchet_client.headers import episode_headers
from ratchet_client.receipts import collected_receipts, note_receipt_async, receipt_of
from streams.calls.records import CapturedCall, Feedback
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from streams.store.queries.episodes import STEPS_OF_EPISODE
from tests.daemon.inference.conftest import run_server
from tests.integration.otlp_role import otlp_role_of
from tests.integration.recording import answers, recorder_of
from tests.recorded import ALIAS, recorded_gateway
from tests.waiting import eventually, until

ASK = "It is dark."
COLUMNS = ("agent", "principal", "environment", "task_id", "seed", "receipt")


@dataclass(slots=True)
class Session:
    """An episode of one SDK: what it says in its headers, and the receipts that it read."""

    name: str
    receipts: list[str | None] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return episode_headers(
            episode=self.name,
            environment="house",
            task=f"lamps/{self.name}",
            seed=17,
            principal="tenant/user",
            agent=f"agent-{self.name}",
        )

    @property
    def step(self) -> tuple[object, ...]:
        """`COLUMNS` of the episode's one step, as it is to be stored."""
        (receipt,) = self.receipts
        return f"agent-{self.name}", "tenant/user", "house", f"lamps/{self.name}", 17, receipt


def asks_openai(base_url: str) -> Session:
    session = Session("openai")
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        response = client.chat.completions.with_raw_response.create(
            model=ALIAS, messages=[{"role": "user", "content": ASK}], max_tokens=8, extra_headers=session.headers
        )
        assert response.parse().choices
    session.receipts.append(receipt_of(response))
    return session


async def streams_openai(base_url: str) -> Session:
    """The headers belong to the client, and the receipt is there before the stream ends."""
    session = Session("openai-stream")
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key="none", max_retries=0, default_headers=session.headers
    ) as client:
        response = await client.chat.completions.with_raw_response.create(
            model=ALIAS, messages=[{"role": "user", "content": ASK}], max_tokens=8, stream=True
        )
        session.receipts.append(receipt_of(response))
        async for _ in response.parse():
            pass
    return session


def asks_langchain(base_url: str) -> list[Session]:
    """The headers belong to the model in one episode, and to the call in the other, which they override."""
    whole, bound = Session("langchain"), Session("langchain-bound")
    model = ChatOpenAI(
        model=ALIAS,
        base_url=base_url,
        api_key=SecretStr("none"),
        max_completion_tokens=8,
        default_headers=whole.headers,
        include_response_headers=True,
    )
    for session, asked in ((whole, model), (bound, model.bind(extra_headers=bound.headers))):
        reply = asked.invoke(ASK)
        session.receipts.append(receipt_of(reply.response_metadata["headers"]))
    return [whole, bound]


async def runs_pydantic_ai(base_url: str) -> Session:
    """It shows no headers of replies: the hook of its HTTP client collects the receipts."""
    session = Session("pydantic-ai")
    async with httpx2.AsyncClient(event_hooks={"response": [note_receipt_async]}, timeout=60) as http_client:
        provider = OpenAIProvider(base_url=base_url, api_key="none", http_client=http_client)
        agent = Agent(OpenAIChatModel(ALIAS, provider=provider))
        settings = ModelSettings(max_tokens=8, extra_headers=session.headers)
        with collected_receipts() as receipts:
            await agent.run(ASK, model_settings=settings)
    session.receipts += receipts
    return session


@pytest.mark.slow
async def test_episodes_of_every_sdk_are_trusted_or_not_as_their_feedback_says(
    kafka: KafkaSettings, tiny_base: Path, tmp_path: Path
) -> None:
    publisher = Publisher(kafka, 10, 900_000, "gateway")
    with (
        otlp_role_of(kafka, tmp_path) as roles,
        recorder_of(kafka, tmp_path) as recorder,
        run_server(tiny_base) as engine,
        recorded_gateway(engine, publisher, kafka.calls_topic) as gateway,
    ):
        base_url = f"{gateway.address}/v1"
        sessions = [
            await asyncio.to_thread(asks_openai, base_url),
            await streams_openai(base_url),
            *await asyncio.to_thread(asks_langchain, base_url),
            await runs_pydantic_ai(base_url),
        ]
        for number, session in enumerate(sessions):
            (receipt,) = session.receipts
            given = send_feedback(base_url, receipt=receipt, verifier="house", success=number % 2 == 0)
            assert given.raise_for_error().taken
        until(lambda: not gateway.waiting, "the calls are published")
        roles.start()
        recorder.start()
        async with StoreClient(recorder.url) as store:
            await eventually(lambda: answers(store))

            async def named(table: str) -> set[str]:
                return {row["episode_id"] for row in (await store.query(f"SELECT episode_id FROM {table}")).to_pylist()}

            async def judged() -> bool:
                return len(await named("trusted") | await named("failed")) == len(sessions)

            await eventually(judged, "every episode is judged")
            trusted, failed = await named("trusted"), await named("failed")
            found = {}
            for session in sessions:
                table = await store.query(STEPS_OF_EPISODE, {"episode_id": session.name})
                (found[session.name],) = (tuple(row[column] for column in COLUMNS) for row in table.to_pylist())
        assert roles.end(signal.SIGTERM) == 0
    publisher.close()
    assert (trusted, failed) == (
        {"openai", "langchain", "pydantic-ai"},
        {"openai-stream", "langchain-bound"},
    )
    assert found == {session.name: session.step for session in sessions}


@pytest.mark.slow
def test_the_session_in_the_readme_labels_its_call_and_gives_feedback(tiny_base: Path) -> None:
    snippet = re.findall(r"```python\n(.*?)```", (ROOT / "clients" / "python" / "README.md").read_text(), re.DOTALL)[0]
    with run_server(tiny_base) as engine, recorded_gateway(engine) as gateway:
        here = {"http://127.0.0.1:8420": gateway.address, 'model="assistant"': f'model="{ALIAS}"'}
        for documented, own in here.items():
            assert documented in snippet
            snippet = snippet.replace(documented, own)
        exec(snippet, {})
        records = gateway.records()
    (call,) = (record for record in records if isinstance(record, CapturedCall))
    (feedback,) = (record for record in records if isinstance(record, Feedback))
    assert (call.labels.episode, call.labels.task, call.labels.agent) == ("order-17-a", "orders/17", "assistant")
    assert (feedback.receipt, feedback.verifier, feedback.success) == (call.receipt, "shop", True)
