"""Somebody's agent that calls tools: answers a customer's question and reports by hand what it said and did.

It asks an OpenAI-compatible endpoint, such as Ratchet's gateway, and publishes its steps with `ratchet_client`.
Run `python examples/tool_calling_agent.py --help`.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

from openai import OpenAI

from ratchet_client.events import Actor, Task
from ratchet_client.headers import episode_headers
from ratchet_client.producer import Producer

ORDERS = {17: "sent on Monday", 18: "waiting for payment"}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "The state of an order.",
            "parameters": {
                "type": "object",
                "properties": {"number": {"type": "integer"}},
                "required": ["number"],
            },
        },
    }
]
MOST_STEPS = 6
# It publishes its steps: recorded at the gateway as well, each episode would be stored twice.
REPORTS_ITSELF = episode_headers(capture=False)


def find_order(number: int) -> str:
    return ORDERS.get(number, "there is no such order")


FUNCTIONS: dict[str, Callable[..., str]] = {"find_order": find_order}


def answer_of(call: Any) -> dict[str, Any]:
    """Run a tool call. What goes wrong is an answer too: the model may call again."""
    try:
        result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
    except (KeyError, TypeError, ValueError) as error:
        result = f"error: {error!r}"
    return {"role": "tool", "tool_call_id": call.id, "content": result}


def help_customer(client: OpenAI, producer: Producer, number: int) -> bool:
    """Answer where an order is, in one episode; whether the answer is right."""
    messages: list[Any] = [
        {"role": "system", "content": "You help the customers of a shop. Look an order up before you speak of it."},
        {"role": "user", "content": f"Where is my order {number}?"},
    ]
    episode = producer.episode(Task(environment="shop", task_id=f"orders/{number}"), Actor(kind="policy"))
    said = ""
    for _ in range(MOST_STEPS):
        completion = client.chat.completions.create(model="assistant", messages=messages, tools=TOOLS)
        reply = completion.choices[0].message
        # Exactly what the model saw, said and was answered: the next step begins with all of it.
        action = reply.model_dump(exclude_none=True)
        answers = [answer_of(call) for call in reply.tool_calls or ()]
        actor = Actor(kind="policy", adapter=completion.model)
        episode.step(messages, action, answers, tools=TOOLS, done=not answers, actor=actor)
        messages = [*messages, action, *answers]
        said = reply.content or ""
        if not answers:
            break
    success = find_order(number) in said
    episode.outcome(verifier="shop", success=success, score=float(success))
    return success


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8420/v1", help="the gateway")
    parser.add_argument("--bootstrap", required=True, help="the Kafka cluster, as `ratchet run` says it")
    parser.add_argument("--principal", default="shop/customer", help="whose data it is")
    parser.add_argument("orders", type=int, nargs="*", default=sorted(ORDERS), help="numbers of orders to ask about")
    options = parser.parse_args()
    client = OpenAI(base_url=options.base_url, api_key="none", default_headers=REPORTS_ITSELF)
    with Producer(options.bootstrap, agent="shop-agent", principal=options.principal) as producer:
        answered = [help_customer(client, producer, number) for number in options.orders]
    print(f"{sum(answered)} of {len(answered)} answers are right")


if __name__ == "__main__":
    main()
