"""The promises that the conformance suite checks, for the author of an environment: how, what is expected, what to do.

`conformance.py` makes a `Check` of each; `ratchet environment check` prints them.
"""

from dataclasses import dataclass

from ratchet_client.settings import FrozenModel
from streams.environments.environment import Restore
from streams.errors import BrokenPromiseError, SandboxError


class Check(FrozenModel):
    """One promise. `kept` is None where nothing could be tried: `seen` then says why, and `remedy` what would help."""

    name: str
    kept: bool | None
    tried: str
    expected: str
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class NotTried:
    """The reason why a promise was not tried, and what makes that it is."""

    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise: how it is tried, what is expected, and what to do about one that is broken."""

    name: str
    tried: str
    expected: str
    remedy: str

    def found(self, found: str | NotTried | SandboxError) -> Check:
        """The check of this promise, of what was seen or why nothing was."""
        match found:
            case NotTried():
                return self._check(None, self.tried, self.expected, found.reason, found.remedy)
            case BrokenPromiseError():
                expected = "\n".join(part for part in (self.expected, found.expected) if part)
                return self._check(False, found.tried or self.tried, expected, found.seen, self.remedy)
            case SandboxError():
                # Not of what came, but that nothing did: the error itself says what to do.
                return self._check(False, self.tried, self.expected, str(found), "")
        return self._check(True, self.tried, self.expected, found, "")

    def _check(self, kept: bool | None, tried: str, expected: str, seen: str, remedy: str) -> Check:
        return Check(name=self.name, kept=kept, tried=tried, expected=expected, seen=seen, remedy=remedy)


NO_ACTIONS = NotTried("no actions were played", "Name actions by --actions FILE.")

CAPABILITIES = Promise(
    "capabilities agree with what is offered",
    "The declared capabilities are compared with the methods that the environment has.",
    "No side effects; a method for each declared way of restoring.",
    "Correct the capabilities (of a plain OpenEnv server: the settings side_effects and deterministic).",
)
PLAYING = Promise(
    "tasks can be begun and played",
    "Each task is reset, and the actions that are known for it are taken, with others aside.",
    "An observation and a fingerprint after each.",
    "Return an observation for every action, of messages that are not the assistant's; the error says what came.",
)
DETERMINISM = Promise(
    "the same actions lead to the same states",
    "Each trajectory is played again, in another process (of a server: in another session).",
    "The same observations and fingerprints.",
    "Take time from the task or leave it out of observations, seed random numbers by the task's seed, take ids from "
    "the state, and sort what has no order; or declare the environment not deterministic.",
)
FINGERPRINTS = Promise(
    "fingerprints change with the state",
    "The fingerprints along each trajectory are compared; of complete ones, steps that change none are left out.",
    "Another state has another fingerprint, and a step that leaves a complete fingerprint changes nothing.",
    "Put all that later observations depend on into the fingerprint, or do not declare it complete.",
)
BRANCHES = Promise(
    "branches share no state",
    "From one state of each trajectory all of its actions are tried, in one order and in the other.",
    "Each action is answered alike in both orders.",
    "Keep all state in the session, and restore all of it: nothing global, no file outside of it.",
)
SESSIONS = Promise(
    "sessions share no state",
    "Two to four trajectories are played in turns, each in a session of its own.",
    "What each showed when it was played alone.",
    "Keep state in the session, not in the class, the module or a shared file or database; let a server hold several "
    "sessions.",
)
DIVERGENCE = Promise(
    "a recording that is not what happens is caught",
    "One recorded observation of each trajectory is falsified, and the recording is restored.",
    "It diverges at the falsified observation.",
    "Return in the observation what the policy is shown, as it was recorded.",
)
NOT_AN_ACTION = Promise(
    "what is not an action is answered",
    "Texts that no environment understands are sent as actions.",
    "An observation that says so, with `understood` false; nothing is raised.",
    "Catch what the action raises and return an observation (an OpenEnv server: instead of raising in step).",
)
DEFINITIONS = Promise(
    "tools are defined as models are given them",
    "The tools of every observation are read.",
    "Function definitions of the OpenAI API, each name once, parameters as JSON Schema of type object; the harness "
    "takes whole messages.",
    "Correct the definition that is named; set the harness's reply to message.",
)
ANSWERS = Promise(
    "each call is answered once, by its id",
    "The calls of the trajectories are made, alone and twice in one message.",
    "For each call one message of the role tool with its tool_call_id, before anything else.",
    "Answer calls by `answer_calls`, or give each call's answer its tool_call_id.",
)
IMPOSSIBLE_CALLS = Promise(
    "a call that cannot be executed is answered",
    "A tool that does not exist is called, and one with arguments that are not JSON.",
    "An error as the call's answer, and `understood` false.",
    "Return an error as the call's answer instead of raising, and set understood to false.",
)
REFUSALS = Promise(
    "refusals leave the session usable",
    "A task that does not exist and the reserved fold are asked for, and then a task is reset twice.",
    "An error for the first two; then the same first observation twice.",
    "Raise SandboxError for unknown tasks and the fold test, and let reset begin from nothing that was before.",
)
TIMEOUTS = Promise(
    "a step over its time ends, and the next session is sound",
    "A reset is given a microsecond, and the task is then reset in a new session.",
    "A time-out, and then the first observation as before.",
    "Let reset take everything from the task; let a server end the session of a lost connection.",
)
DEMONSTRATIONS = Promise(
    "demonstrations succeed",
    "The demonstration of each task is played.",
    "Success after its last action, and an id of its own for each call.",
    "Correct the demonstration, or the check that judges it.",
)
GENERATED_TASKS = Promise(
    "generated tasks are the same each time and can be begun",
    "Tasks are generated twice, in two processes, and some are reset.",
    "The same tasks, none of which is listed, and the same first observation twice.",
    "Draw everything by random.Random(seed), and give generated tasks ids of their own.",
)


def restoring_by(way: Restore) -> Promise:
    """The promise that states come back by `way`."""
    return Promise(
        f"states come back exactly by {way}",
        "States of the trajectories, drawn at random, are restored and continued for two actions.",
        "The fingerprint of that state, and the same observations after it.",
        f"Restore all of the state, random generators included; or do not declare {way}.",
    )
