"""Agents with two tools, each with a library and an instrumentation of its own: `… KIND OTLP MODEL TASK`.

A kind is `LIBRARY` or `LIBRARY-stream`. Each agent is asked twice, in one conversation, and what it did is evaluated.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

INSTRUCTIONS = "You plan journeys."
QUESTIONS = ("Rome or Oslo?", "Thanks. Any museum?")


def weather(city: str) -> str:
    """Weather of a city."""
    return json.dumps({"sky": "blue", "degrees": 21}) if city == "Rome" else 'Snow, "deep".'


def book(city: str, nights: int) -> str:
    """Book a room."""
    return f"Booked {nights} nights in {city}."


def _schema(**types: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in types.items()},
        "required": list(types),
    }


SCHEMAS: dict[Callable[..., str], Any] = {
    weather: _schema(city="string"),
    book: _schema(city="string", nights="integer"),
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": tool.__name__, "description": tool.__doc__, "parameters": schema}}
    for tool, schema in SCHEMAS.items()
]
BY_NAME: dict[str, Callable[..., str]] = {tool.__name__: tool for tool in SCHEMAS}


def with_openai(url: str, stream: bool) -> None:
    """A loop of its own around OpenAI's client."""
    import openai

    client: Any = openai.OpenAI(base_url=url, api_key="none")
    chat: list[Any] = [{"role": "system", "content": INSTRUCTIONS}]
    for question in QUESTIONS:
        chat.append({"role": "user", "content": question})
        while True:
            told = {"model": "stub", "messages": chat, "tools": TOOLS}
            if stream:
                reply = _collected(client.chat.completions.create(**told, stream=True))
            else:
                message = client.chat.completions.create(**told).choices[0].message
                reply = message.model_dump(exclude_none=True)
            chat.append(reply)
            if not reply.get("tool_calls"):
                break
            for made in reply["tool_calls"]:
                result = BY_NAME[made["function"]["name"]](**json.loads(made["function"]["arguments"]))
                chat.append({"role": "tool", "tool_call_id": made["id"], "content": result})


def _collected(chunks: Any) -> dict[str, Any]:
    content = ""
    calls: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            content += choice.delta.content or ""
            for piece in choice.delta.tool_calls or ():
                made = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                made["id"] += piece.id or ""
                made["name"] += piece.function.name or ""
                made["arguments"] += piece.function.arguments or ""
    listed = [
        {"id": made["id"], "type": "function", "function": {"name": made["name"], "arguments": made["arguments"]}}
        for made in calls.values()
    ]
    return {"role": "assistant", "content": content or None} | ({"tool_calls": listed} if listed else {})


async def with_pydantic_ai(url: str, stream: bool, traces: TracerProvider) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("stub", provider=OpenAIProvider(base_url=url, api_key="none"))
    agent: Any = Agent(model, instructions=INSTRUCTIONS, tools=[weather, book])
    agent.instrument = InstrumentationSettings(tracer_provider=traces)
    history = None
    for question in QUESTIONS:
        if stream:
            # `run_stream` takes the first text for the answer, and looks at no call that comes with it.
            async with agent.iter(question, message_history=history) as result:
                async for node in result:
                    if agent.is_model_request_node(node):
                        async with node.stream(result.ctx) as pieces:
                            async for _ in pieces:
                                pass
        else:
            result = await agent.run(question, message_history=history)
        history = result.all_messages()


async def with_openai_agents(url: str, stream: bool, responses: bool, traces: TracerProvider) -> None:
    from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
    from openai import AsyncOpenAI
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

    OpenAIAgentsInstrumentor().instrument(tracer_provider=traces)
    client: Any = AsyncOpenAI(base_url=url, api_key="none")
    model = OpenAIResponsesModel("stub", client) if responses else OpenAIChatCompletionsModel("stub", client)
    tools: Any = [function_tool(weather), function_tool(book)]
    agent = Agent(name="planner", instructions=INSTRUCTIONS, model=model, tools=tools)
    history: list[Any] = []
    for question in QUESTIONS:
        asked: Any = [*history, {"role": "user", "content": question}] if history else question
        result: Any
        if stream:
            result = Runner.run_streamed(agent, asked)
            async for _ in result.stream_events():
                pass
        else:
            result = await Runner.run(agent, asked)
        history = result.to_input_list()


def main(kind: str, otlp: str, url: str, task_id: str) -> None:
    traces, logs = TracerProvider(span_limits=SpanLimits(max_span_attributes=2000)), LoggerProvider()
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{otlp}/v1/traces")))
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{otlp}/v1/logs")))
    library, stream = kind.removesuffix("-stream"), kind.endswith("-stream")
    if library == "openinference":
        from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference

        OpenInference().instrument(tracer_provider=traces)
    elif library.startswith("openllmetry"):
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry

        instrumentor = OpenLLMetry(use_attributes=library == "openllmetry")
        instrumentor.instrument(tracer_provider=traces, logger_provider=logs)
    task: dict[str, Any] = {
        "ratchet.task.environment": "journeys",
        "ratchet.task.id": task_id,
        "ratchet.task.seed": 5,
    }
    with traces.get_tracer("agent").start_as_current_span("run", attributes=task):
        if library == "pydantic-ai":
            asyncio.run(with_pydantic_ai(url, stream, traces))
        elif library.startswith("openai-agents"):
            asyncio.run(with_openai_agents(url, stream, library.endswith("responses"), traces))
        else:
            with_openai(url, stream)
        verdict = {"gen_ai.evaluation.name": "task_success", "gen_ai.evaluation.score.label": "pass"}
        logs.get_logger("judge").emit(LogRecord(event_name="gen_ai.evaluation.result", attributes=verdict))
    traces.shutdown()
    logs.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
