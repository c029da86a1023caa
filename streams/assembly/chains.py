"""Assignment of model calls to conversations: a trace holds one append-only conversation, or several. Pure.

An episode is an append-only conversation, so calls of sub-agents, of judges, or of an agent that rewrites its history
become episodes of their own. So does a reply that was not gone on with, because the same was asked again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ratchet_client.messages import Messages
from streams.assembly.continuation import answered, asked, continued, newest_reply
from streams.calls.chat import Chat

Place: TypeAlias = tuple[str, str]  # a span's trace key and id; a captured call's receipt, and its choice if several


@dataclass(frozen=True, slots=True)
class Call:
    """A model call. `name` tells an episode that begins with it from others of its unit.

    `agent`, `principal`, `environment`, `task_id`, `seed` and `state` are those of its event; without `task_id` the
    task is known by its opening. `signer` is the principal whose token came with it. `flag` says why nothing may be
    learned from its episode.
    """

    place: Place
    name: str
    event_id: str
    began_ns: int
    ended_ns: int
    chat: Chat
    agent: str
    principal: str
    environment: str
    task_id: str | None = None
    seed: int = 0
    state: str | None = None
    receipt: str | None = None
    signer: str | None = None
    flag: str | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls of which each continues the one before. `observations` came back between them.

    `superseded` where its first messages were answered again, and that answer was gone on with, or is the later one.
    """

    calls: Sequence[Call]
    observations: Sequence[Messages]
    superseded: bool = False


@dataclass(slots=True)
class _Node:
    call: Call
    asked: str
    answered: str
    parent: "_Node | None" = None
    children: "list[_Node]" = field(default_factory=list)
    depth: int = 1  # calls on the longest way from here on

    @property
    def rank(self) -> tuple[int, int, str]:
        """Of several answers to the same, the one that was gone on with the farthest counts, of equals the latest."""
        return self.depth, self.call.began_ns, self.call.event_id


def chains(calls: Iterable[Call]) -> list[Chain]:
    """The append-only conversations that the calls form, in order of their first calls.

    A call continues another if it saw the same messages, then the other's reply, then something that is not a reply.
    Where several continue the same call, the one that was gone on with the farthest, else the latest, stays with it;
    each other begins a conversation whose first state has the history.
    """
    nodes = [_Node(call, asked(call.chat), answered(call.chat)) for call in calls]
    # A call saw more than the one that it continues, whatever the clocks of two machines say.
    nodes.sort(key=lambda node: (len(node.call.chat.messages), node.call.began_ns, node.call.event_id))
    going_on = Counter(continued(node.call.chat) for node in nodes)
    said: dict[str, list[_Node]] = {}
    for node in nodes:
        before = continued(node.call.chat)
        if before is not None and (candidates := said.get(before)):
            node.parent = _parent(node, candidates, going_on)
            node.parent.children.append(node)
        said.setdefault(node.answered, []).append(node)
    for node in reversed(nodes):
        if node.parent is not None:
            node.parent.depth = max(node.parent.depth, node.depth + 1)
    best: dict[str, _Node] = {}
    for node in nodes:
        if node.asked not in best or node.rank > best[node.asked].rank:
            best[node.asked] = node
    firsts = [node for node in nodes if node.parent is None or _next(node.parent) is not node]
    firsts.sort(key=lambda node: (node.call.began_ns, node.call.event_id))
    return [_chain(first, best[first.asked] is not first) for first in firsts]


def _parent(node: _Node, candidates: Sequence[_Node], going_on: Mapping[str | None, int]) -> _Node:
    """The call that `node` continues, of those that saw and said the same.

    Equal chats that go on differently are as many chats. What is asked again is the same chat, unless both answers were
    gone on with.
    """
    again = [child for each in candidates for child in each.children if child.asked == node.asked]
    twins = [
        child
        for child in again
        if min(going_on[child.answered], going_on[node.answered]) > (child.answered == node.answered)
    ]
    if again and not twins:
        parent = again[-1].parent
        assert parent is not None  # it is a child
        return parent
    return next((each for each in reversed(candidates) if not each.children), candidates[-1])


def _next(node: _Node) -> _Node | None:
    return max(node.children, key=lambda child: child.rank, default=None)


def _chain(first: _Node, superseded: bool) -> Chain:
    calls, observations = [first.call], []
    node = _next(first)
    while node is not None:
        messages, replied = node.call.chat.messages, newest_reply(node.call.chat)
        assert replied is not None  # it continues another
        # Agents trim replies, and rewrite arguments, before they put them into the history; instrumentations
        # lose ids of calls in one of the two. What they went on with is what was done.
        last, history = calls[-1], messages[replied]
        told = {"content": history.content, "tool_calls": history.tool_calls}
        calls[-1] = replace(last, chat=replace(last.chat, action=last.chat.action.model_copy(update=told)))
        observations.append(messages[replied + 1 :])
        calls.append(node.call)
        node = _next(node)
    return Chain(calls, observations, superseded)
