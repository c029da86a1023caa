"""Environments that a third party might install: two sound ones, and one for each promise that can be broken.

A lamp in a room of numbered places: an action is a number to walk by, `light`, `look`, `hang`, `die`, or a `score` that
is not one.
"""

import json
import os
import random
import time
from dataclasses import replace

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, ToolDefinition, assistant, tool_result, user
from streams.environments.environment import Capabilities, Network, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.errors import SandboxError

ALL_WAYS = (Restore.SNAPSHOT, Restore.FORK, Restore.REPLAY)


class Sound:
    """Keeps every promise. The task `walk/<fold>/<place>` is to light the lamp at that place."""

    capabilities = Capabilities(ALL_WAYS, deterministic=True, side_effects=False, complete_fingerprint=True)
    harness = ChatHarness()

    def __init__(self) -> None:
        self.lamp, self.place, self.lit = 0, 0, False

    def reset(self, task: Task) -> Observation:
        game, fold, place = (*task.task_id.split("/"), "", "")[:3]
        if game != "walk" or fold not in ("train", "dev") or not place.isdecimal():
            raise SandboxError(f"no such task: {task.task_id!r}")
        self.lamp, self.place, self.lit = int(place), 0, False
        return self.observed(f"The lamp is at {self.lamp}.")

    def step(self, action: Message) -> Observation:
        said = action.text
        if said == "hang":
            time.sleep(3600)
        if said == "die":
            os._exit(1)
        if said.startswith("score "):
            return Observation.said("Done.", float(said.removeprefix("score ")), True, True)
        if said == "look":
            return self.observed("You look.")
        if said == "light":
            self.lit = self.place == self.lamp
            return self.observed("Light!" if self.lit else "Here is no lamp.")
        if said not in self.valid_actions():
            return self.observed("What?", understood=False)
        self.place += int(said)
        return self.observed("You walk.")

    def observed(self, text: str, understood: bool = True) -> Observation:
        return Observation.said(f"{text} You are at {self.place}.", float(self.lit), self.lit, self.lit, understood)

    def valid_actions(self) -> list[str]:
        return ["+1", "+2", "-1", "light", "look"]

    def fingerprint(self) -> str:
        return content_id(str(self.lamp), str(self.place), str(self.lit))

    def snapshot(self) -> object:
        return (self.lamp, self.place, self.lit)

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, tuple)
        self.lamp, self.place, self.lit = snapshot

    def games(self) -> tuple[str, ...]:
        return ("walk",)

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        if fold == "test":
            raise SandboxError("the fold test is reserved")
        return tuple(Task(environment="faulty", task_id=f"{game}/{fold}/{place}") for place in range(3, 9))

    def demonstration(self, task: Task) -> list[Message]:
        return [*[assistant("+1")] * int(task.task_id.rpartition("/")[2]), assistant("light")]

    def close(self) -> None:
        """Nothing is held."""


class Dark(Sound):
    """Keeps every promise too. The lamp of `dark/<fold>/<name>` is where one begins, so one word solves every task.

    What begins with that word is understood as well: a tiny model learns a word sooner than where to end.
    """

    harness = ChatHarness(system_prompt="Light the lamp.", max_steps=2)

    def reset(self, task: Task) -> Observation:
        game, fold, name = (*task.task_id.split("/"), "", "")[:3]
        if game != "dark" or fold not in ("train", "dev") or not name.isdecimal():
            raise SandboxError(f"no such task: {task.task_id!r}")
        self.lamp, self.place, self.lit = 0, 0, False
        return self.observed("It is dark.")

    def step(self, action: Message) -> Observation:
        return super().step(assistant("light") if action.text.startswith("light") else action)

    def games(self) -> tuple[str, ...]:
        return ("dark",)

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        if fold == "test":
            raise SandboxError("the fold test is reserved")
        return tuple(Task(environment="faulty_dark", task_id=f"{game}/{fold}/{name}") for name in range(40))

    def demonstration(self, task: Task) -> list[Message]:
        return [assistant("light")]


class Lottery(Sound):
    """Luck decides: an action that begins with a letter of an even code wins four times of five, others once in twenty.

    So there is always something to practise, and something to learn for a model that says anything at random.
    """

    capabilities = Capabilities(ALL_WAYS, deterministic=False, side_effects=False)
    harness = ChatHarness(system_prompt="Draw.", max_steps=1, max_tokens=1)

    def reset(self, task: Task) -> Observation:
        game, fold, name = (*task.task_id.split("/"), "", "")[:3]
        if game != "lottery" or fold not in ("train", "dev") or not name.isdecimal():
            raise SandboxError(f"no such task: {task.task_id!r}")
        self.lamp, self.place, self.lit = 0, 0, False
        return self.observed(f"Draw number {name}.")

    def step(self, action: Message) -> Observation:
        fits = action.text != "" and ord(action.text[0]) % 2 == 0
        self.lit = random.random() < (0.8 if fits else 0.05)
        return Observation.said("Drawn.", float(self.lit), True, self.lit)

    def games(self) -> tuple[str, ...]:
        return ("lottery",)

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        if fold == "test":
            raise SandboxError("the fold test is reserved")
        return tuple(Task(environment="faulty_lottery", task_id=f"{game}/{fold}/{name}") for name in range(150))


class Forgetful(Sound):
    """Brings back a state that is a step off."""

    def restore(self, snapshot: object) -> None:
        super().restore(snapshot)
        self.place += 1


class Diverging(Sound):
    """Says something else each time."""

    def observed(self, text: str, understood: bool = True) -> Observation:
        return super().observed(f"{text} {random.random()}", understood)


class Leaking(Sound):
    """Its sessions stand at the same place."""

    shared = 0

    @property
    def place(self) -> int:
        return Leaking.shared

    @place.setter
    def place(self, place: int) -> None:
        Leaking.shared = place


class Blurred(Sound):
    """Its fingerprint never changes."""

    capabilities = Capabilities((Restore.REPLAY,), deterministic=True, side_effects=False)

    def fingerprint(self) -> str:
        return "always the same"


class Counting(Sound):
    """Counts the steps, says so, and leaves it out of the fingerprint that it calls complete."""

    capabilities = Capabilities((Restore.REPLAY,), deterministic=True, side_effects=False, complete_fingerprint=True)

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def reset(self, task: Task) -> Observation:
        self.steps = 0
        return super().reset(task)

    def observed(self, text: str, understood: bool = True) -> Observation:
        self.steps += 1
        return super().observed(f"{text} {self.steps}", understood)


class Harmful(Sound):
    """Does something to somebody."""

    capabilities = Capabilities(ALL_WAYS, deterministic=True, side_effects=True)


class Unforkable(Sound):
    """Declares fork, and has a connection."""

    capabilities = Capabilities(ALL_WAYS, deterministic=True, side_effects=False, network=Network.REMOTE)


class Costly(Sound):
    """Keeps the contract, and says that its process is costly to start."""

    capabilities = replace(Sound.capabilities, costly_start=True)


class Careless(Sound):
    """Begins whatever it is told to begin."""

    def reset(self, task: Task) -> Observation:
        try:
            return super().reset(task)
        except SandboxError:
            return self.observed("Somewhere.")


class Raising(Sound):
    """Cannot answer what it does not understand."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        if not answer.understood:
            raise SandboxError(f"no such action: {action.text[:20]!r}")
        return answer


class Losing(Sound):
    """Its demonstrations do not succeed."""

    def demonstration(self, task: Task) -> list[Message]:
        return [assistant("+1")]


class Open(Sound):
    """Lists the tasks of the fold that is reserved."""

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        return super().task_list(game, "train")


class Mailbox:
    """A tool suite whose tools give an address and take it: the first contact wants a mail."""

    capabilities = Capabilities(ALL_WAYS, deterministic=True, side_effects=False, complete_fingerprint=True)
    harness = ChatHarness(system_prompt="You write mails.", reply="message", max_tokens=256, stop=())
    tools: tuple[ToolDefinition, ...] = (
        {"type": "function", "function": {"name": "contacts", "parameters": {"type": "object", "properties": {}}}},
        {
            "type": "function",
            "function": {
                "name": "send",
                "parameters": {
                    "type": "object",
                    "properties": {"to": {"type": "string"}, "text": {"type": "string"}},
                    "required": ["to"],
                },
            },
        },
    )

    def __init__(self) -> None:
        self.taken: tuple[str, ...] = ()

    def reset(self, task: Task) -> Observation:
        self.taken = ()
        return Observation((user("Write to my first contact."),), 0.0, False, False, tools=self.tools)

    def step(self, action: Message) -> Observation:
        answers, done = [], False
        for call in action.calls:
            assert call.function is not None
            self.taken = (*self.taken, call.function.name, call.function.arguments)
            to = json.loads(call.function.arguments).get("to")
            contacts = {"Bob": "bob@example.com", "Carol": "carol@example.com"}
            answer: object = {"sent": to} if to in contacts.values() else {"error": f"There is no {to}."}
            done = done or to == "bob@example.com"
            if call.function.name == "contacts":
                answer = [{"name": name, "email": address} for name, address in contacts.items()]
            answers.append(tool_result(json.dumps(answer), call.id))
        return Observation(tuple(answers) or (user("Go on."),), float(done), done, done)

    def fingerprint(self) -> str:
        return content_id(*self.taken)

    def snapshot(self) -> object:
        return self.taken

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, tuple)
        self.taken = snapshot

    def close(self) -> None:
        """Nothing is held."""


class Post(Mailbox):
    """A text game that shows an address and a password, which its actions need."""

    harness = ChatHarness(system_prompt="Write to help@example.org if you are stuck.")
    sign = "<EMAIL_0a1b2c>"

    def reset(self, task: Task) -> Observation:
        self.taken = ()
        return self.said("A letter for bob@example.com lies here.")

    def step(self, action: Message) -> Observation:
        verb, _, rest = action.text.partition(" ")
        self.taken = (*self.taken, action.text)
        if verb == "mail" and rest in ("bob@example.com", "help@example.org"):
            return self.said(f"It goes to {rest}.", done=rest.startswith("bob"))
        if verb == "read":
            return self.said("The back says: password=tr0ub4dor-x9")
        if verb == "look":
            return self.said(f"A sign on the wall: {self.sign}")
        if verb == "open" and rest == "tr0ub4dor-x9":
            return self.said(f"You whisper {rest}, and the door opens.")
        return self.said(f"You cannot {action.text}.", understood=False)

    def said(self, text: str, done: bool = False, understood: bool = True) -> Observation:
        return Observation.said(text, float(done), done, done, understood)

    def valid_actions(self) -> list[str]:
        return ["look", "mail bob@example.com", "read"]
