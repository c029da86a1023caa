"""A tool environment as a third party would write it: an order desk whose customers want their money back.

An agent looks orders up and refunds them with tools, and then says so; `docs/environments.md` goes through it. Register
the class under the entry-point group `ratchet.environments`, and `ratchet environment check NAME` runs on it.
"""

from dataclasses import dataclass, replace

from pydantic import JsonValue

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, assistant
from streams.environments.environment import Capabilities, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.tool_answers import answer_calls
from streams.environments.tool_calls import Call, calling
from streams.environments.tool_definitions import Tool
from streams.errors import SandboxError, ToolCallError

CUSTOMERS = ("ann@shop.example", "bob@shop.example", "eve@shop.example")

TOOLS = (
    Tool(
        "find_orders",
        "The orders of a customer.",
        {
            "type": "object",
            "properties": {"email": {"type": "string", "description": "The customer's e-mail address."}},
            "required": ["email"],
            "additionalProperties": False,
        },
    ),
    Tool(
        "refund",
        "Pay an order back.",
        {
            "type": "object",
            "properties": {"order": {"type": "integer"}, "reason": {"enum": ["broken", "late", "unwanted"]}},
            "required": ["order", "reason"],
            "additionalProperties": False,
        },
    ),
)


@dataclass(frozen=True, slots=True)
class Desk:
    """All of the state: which order is to be refunded, and why; what was refunded; whether the customer has left."""

    customer: str
    order: int
    refunds: tuple[tuple[int, str], ...] = ()
    over: bool = False

    @property
    def right(self) -> bool:
        return self.refunds == ((self.order, "broken"),)


class OrderDesk:
    """One session. A task's id is `refund/<fold>/<order>`, such as `refund/train/17`; its fold is `train` or `dev`."""

    capabilities = Capabilities(
        (Restore.SNAPSHOT, Restore.REPLAY), deterministic=True, side_effects=False, complete_fingerprint=True
    )
    harness = ChatHarness(
        system_prompt="You are at the order desk of a shop.", max_steps=8, reply="message", max_tokens=200, stop=()
    )

    def __init__(self) -> None:
        self._desk: Desk | None = None

    def reset(self, task: Task) -> Observation:
        order = _order(task)
        desk = self._desk = Desk(CUSTOMERS[order % len(CUSTOMERS)], order)
        question = f"I am {desk.customer}, and my order {order} came broken. I want my money back."
        # The tools are offered with the first observation. A later one names them again only if others are offered.
        return replace(Observation.said(question, 0.0, False, False), tools=tuple(tool.definition for tool in TOOLS))

    def step(self, action: Message) -> Observation:
        desk = self._present
        if desk.over:
            return Observation.answering(action, "The customer has left.", 0.0, True, desk.right, understood=False)
        if not action.calls:
            self._desk = desk = replace(desk, over=True)
            return Observation.said("Thank you.", float(desk.right), True, desk.right)
        answered = answer_calls(action, TOOLS, self._execute)
        return Observation(answered.messages, 0.0, False, False, answered.understood)

    def _execute(self, call: Call) -> JsonValue:
        """The result of a call whose arguments are as the tool's schema has them."""
        desk = self._present
        if call.name == "find_orders":
            return [desk.order] if call.arguments["email"] == desk.customer else []
        if call.arguments["order"] != desk.order:
            raise ToolCallError(f"There is no order {call.arguments['order']}.")
        self._desk = replace(desk, refunds=(*desk.refunds, (desk.order, str(call.arguments["reason"]))))
        return {"refunded": desk.order}

    def fingerprint(self) -> str:
        return content_id(repr(self._present))

    def snapshot(self) -> object:
        return self._present  # it is never changed, so it needs no copy

    def restore(self, snapshot: object) -> None:
        if not isinstance(snapshot, Desk):
            raise SandboxError(f"{snapshot!r} is not a snapshot of the order desk. Restore what it gave.")
        self._desk = snapshot

    def games(self) -> tuple[str, ...]:
        return ("refund",)

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        if game != "refund" or fold not in ("train", "dev"):
            raise SandboxError(f"the fold {fold!r} of {game!r} is reserved or unknown. Use refund, train or dev.")
        numbers = range(100, 160) if fold == "train" else range(200, 220)
        return tuple(Task(environment="order_desk", task_id=f"refund/{fold}/{number}") for number in numbers)

    def demonstration(self, task: Task) -> list[Message]:
        """Actions that solve the task. `calling` gives their calls ids."""
        order = _order(task)
        find = Call("find_orders", {"email": CUSTOMERS[order % len(CUSTOMERS)]})
        refund = Call("refund", {"order": order, "reason": "broken"})
        return [calling([find], "demonstration"), calling([refund], "demonstration"), assistant("You have it back.")]

    def close(self) -> None:
        self._desk = None

    @property
    def _present(self) -> Desk:
        if self._desk is None:
            raise SandboxError("the order desk was asked before it was opened. Reset it to a task first.")
        return self._desk


def _order(task: Task) -> int:
    game, fold, number = (*task.task_id.split("/"), "", "")[:3]
    if game != "refund" or fold not in ("train", "dev") or number not in map(str, range(1000)):
        raise SandboxError(f"{task.task_id!r} is not a task of the order desk. Name it refund/<train or dev>/<order>.")
    return int(number)
