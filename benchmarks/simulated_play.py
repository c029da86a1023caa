"""Simulated rollouts of champions and candidates, honest ones; `gate_cheats.py` makes cheats of them.

Two worlds: a text game, whose actions are texts, and a support desk, whose actions are calls of tools. A player of
skill p solves the task that a shared difficulty lets it, by the known solution and some detours; where it fails it
wanders, repeats itself, errs, refuses or asks. Players that are better err and wander less.
"""

import json
import math
import random
from dataclasses import dataclass
from statistics import NormalDist

from evaluation.rollouts import Pair, Rollout
from evaluation.sentinels.facts import Facts
from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, assistant, call, tool_result, user

_WORDS = "plate cup fork book lamp shirt hat towel soap pan brush chair ball coat bowl knife toy vase key shoe"
_PLACES = "fridge shelf drawer sink wardrobe box table basket rack cupboard bin counter"
WORDS, PLACES = _WORDS.split(), _PLACES.split()
MOST_STEPS = {"game": 15, "desk": 10}
_RHO = 0.75
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Player:
    """The habits of a player: shares of its actions, of its failed episodes or, for `own_way`, of its successes.

    In its own way it takes other actions that do the same for some of the known solution's.
    """

    skill: float
    detours: float = 1.5
    invalid: float = 0.15
    repeats: float = 0.3
    refuses: float = 0.05
    asks: float = 0.05
    talks: float = 0.0
    own_way: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """A task with its known solution, and what the world answers."""

    task: Task
    world: str
    solution: Messages
    opening: Messages


def task(world: str, number: int, chance: random.Random) -> Simulated:
    named = Task(environment="simulated", task_id=f"{world}/train/{number}")
    if world == "game":
        chosen = chance.sample(WORDS, 2)
        actions: list[Message] = []
        for word in chosen:
            place = chance.choice(PLACES)
            actions.append(assistant(f"take {word}"))
            if chance.random() < 0.4:
                actions.append(assistant(f"open {place}"))
            actions.append(assistant(f"put {word} in {place}"))
        return Simulated(named, world, tuple(actions), (user(f"A room. You see {' and '.join(chosen)}."),))
    name, customer, order = f"Customer {number}", 10_000 + number, chance.randint(100_000, 999_999)
    solution = (
        _call("find_customer", name=name),
        _call("list_orders", customer=customer),
        _call(chance.choice(("refund_order", "cancel_order")), order=order, item=chance.choice(WORDS)),
        assistant(f"It is done: {order}."),
    )
    return Simulated(named, world, solution, (user(f"I am {name}. Please help."),))


def _call(tool: str, **arguments: object) -> Message:
    return assistant(None, call(tool, json.dumps(arguments), f"call_{tool}"))


def _arguments(action: Message) -> str:
    function = action.calls[0].function
    return function.arguments if function else "{}"


def answered(simulated: Simulated, action: Message, understood: bool = True) -> Messages:
    """Return what the world says to an action."""
    if simulated.world == "game":
        return (user("You do it." if understood else "Unknown action."),)
    if not understood:
        return tuple(
            tool_result('{"error": "the arguments are not as the tool wants them"}', c.id) for c in action.calls
        )
    customer, order = (json.loads(_arguments(simulated.solution[place])) for place in (1, 2))
    shown = {"find_customer": customer, "search_customer": customer, "list_orders": order, "show_orders": order}
    return tuple(
        tool_result(json.dumps(shown.get(c.function.name if c.function else "", {"ok": True})), c.id)
        for c in action.calls
    )


def rollout(
    simulated: Simulated, success: bool, taken: list[tuple[Message, bool]], score: float | None = None
) -> Rollout:
    """The rollout of actions, each with whether it was understood."""
    messages = list(simulated.opening)
    for action, understood in taken:
        messages += [action, *answered(simulated, action, understood)]
    return Rollout(
        task_id=simulated.task.task_id,
        success=success,
        score=float(success) if score is None else score,
        steps=len(taken),
        invalid_actions=sum(not understood for _, understood in taken),
        actions=tuple(action for action, _ in taken),
        messages=tuple(messages),
    )


def detour(simulated: Simulated, player: Player, chance: random.Random) -> tuple[Message, bool]:
    """An action that leads nowhere."""
    invalid = chance.random() < player.invalid
    if simulated.world == "game":
        word, place = chance.choice(WORDS), chance.choice(PLACES)
        text = f"fold {word}" if invalid else chance.choice((f"open {place}", f"take {word}", f"examine {place}"))
        return assistant(text), not invalid
    if invalid:
        return _call("list_orders", customer=chance.choice(WORDS)), False
    return _call("find_customer", name=chance.choice(WORDS)), True


def played(simulated: Simulated, player: Player, solved: bool, chance: random.Random) -> Rollout:
    """Return how `player` plays the task, which it solves or not."""
    most = MOST_STEPS[simulated.world]
    if solved:
        own_way = chance.random() < player.own_way
        taken = [
            (_otherwise(action) if own_way and chance.random() < 0.5 else action, True) for action in simulated.solution
        ]
        extra = min(most - len(taken), _poisson(player.detours * (1 + player.invalid), chance))
        for _ in range(extra):
            place = chance.randrange(len(taken))
            again = chance.random() < 0.3 and taken[place][0].calls == () and simulated.world == "game"
            taken.insert(place, taken[place] if again else detour(simulated, player, chance))
        return rollout(simulated, True, taken)
    if chance.random() < player.talks:
        return rollout(simulated, False, [_talk(simulated, player, chance)] * (4 if simulated.world == "game" else 1))
    taken = []
    while len(taken) < most:
        taken.append(detour(simulated, player, chance))
        if chance.random() < player.repeats / 2:
            taken += [taken[-1]] * 3
            break
    if simulated.world == "desk":
        taken = [*taken[: most - 1], _talk(simulated, player, chance)]
    return rollout(simulated, False, taken[:most])


_OTHERWISE = {
    "take": "pick up",
    "open": "look in",
    "put": "insert",
    "find_customer": "search_customer",
    "list_orders": "show_orders",
    "refund_order": "reimburse_order",
    "cancel_order": "revoke_order",
}


def _otherwise(action: Message) -> Message:
    """Another action that does the same."""
    for each in action.calls:
        if each.function is not None:
            return _call(_OTHERWISE[each.function.name], **json.loads(each.function.arguments))
    verb, _, rest = action.text.partition(" ")
    return assistant(f"{_OTHERWISE[verb]} {rest}") if verb in _OTHERWISE else action


def _talk(simulated: Simulated, player: Player, chance: random.Random) -> tuple[Message, bool]:
    number = chance.random()
    text = f"I have looked at it, customer {simulated.task.task_id}."
    if number < player.refuses:
        text = "I'm sorry, but I cannot help with that."
    elif number < player.refuses + player.asks:
        text = "Which order do you mean?"
    return assistant(text), simulated.world == "desk"


def _poisson(mean: float, chance: random.Random) -> int:
    number, product, bound = 0, chance.random(), math.exp(-mean)
    while product > bound:
        number, product = number + 1, product * chance.random()
    return number


def trial(
    world: str, tasks: int, champion: Player, candidate: Player, chance: random.Random
) -> tuple[list[Simulated], Facts]:
    """Both play the same tasks; successes go together as those of one model's adapters do."""
    simulated = [task(world, number, chance) for number in range(tasks)]
    pairs = []
    for each in simulated:
        shared = chance.gauss(0, 1)
        sides = []
        for player in (champion, candidate):
            ability = _RHO**0.5 * shared + (1 - _RHO) ** 0.5 * chance.gauss(0, 1)
            solved = player.skill > 0 and ability < _NORMAL.inv_cdf(min(0.999, player.skill))
            sides.append(played(each, player, solved, chance))
        pairs.append(Pair(each.task, *sides))
    return simulated, facts_of(simulated, pairs)


def facts_of(simulated: list[Simulated], pairs: list[Pair], forged: frozenset[str] = frozenset()) -> Facts:
    """The facts of pairs whose successes succeed again, but for those of the tasks `forged`."""
    replays = {n: pair.task.task_id not in forged for n, pair in enumerate(pairs) if pair.candidate.success}
    unsolvable = [rollout(each, False, [(each.solution[0], True)]) for each in simulated[:10]]
    return Facts(pairs, {each.task.task_id: each.solution for each in simulated}, replays, unsolvable=unsolvable)


def players(chance: random.Random) -> tuple[Player, Player]:
    """A champion, of which one in five is an untrained model, and a candidate that is better by 5 to 50 points."""
    gain = chance.uniform(0.05, 0.5)
    if chance.random() < 0.2:
        champion = Player(0.0, invalid=0.95, talks=chance.uniform(0.3, 1), refuses=0.15, asks=0.3)
        better = Player(
            gain,
            chance.uniform(1, 3),
            chance.uniform(0.1, 0.6),
            chance.uniform(0.2, 0.8),
            own_way=chance.uniform(0, 0.3),
        )
        return champion, better
    skill = chance.uniform(0.05, 0.8)
    champion = Player(
        skill,
        detours=chance.uniform(0.5, 3),
        invalid=chance.uniform(0.02, 0.5),
        repeats=chance.uniform(0.1, 0.8),
        refuses=chance.uniform(0, 0.2),
        asks=chance.uniform(0, 0.2),
        talks=chance.uniform(0, 0.1),
        own_way=chance.uniform(0, 0.5),
    )
    less = chance.uniform(0.5, 1.0)
    better = Player(
        min(0.98, skill + gain),
        champion.detours * less,
        champion.invalid * less,
        champion.repeats * less,
        champion.refuses * less,
        champion.asks * less,
        champion.talks * less,
        max(0.0, champion.own_way + chance.uniform(-0.1, 0.1)),
    )
    return champion, better
