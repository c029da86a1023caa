"""Writes the rationales of a snapshot, once: composed, or asked of a model by the OpenAI API.

A writer that fails is no reason not to learn: what it did not write is composed, and what breaks a rule is left out.
Both are in the file with the reason. The cycle and studies call it before a training that has the objective
`reflection`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from learners.chat import ChatTokenizer
from learners.objectives.reflection import GROUNDED, MODEL
from learners.reflections.filters import Draft, reason_to_drop
from learners.reflections.grounded import composed
from learners.reflections.places import Places, places
from learners.reflections.prompts import question
from learners.reflections.records import (
    Reflection,
    ReflectionFile,
    find_reflections,
    reflections_path,
    write_reflections,
)
from learners.reflections.states import ReflectedState, reflected_states, shown, told
from learners.settings import LearnerSettings
from learners.snapshots import read_trajectories
from ratchet_client.messages import escaped
from streams.environments.harness import ChatHarness
from streams.errors import ContextLengthError, PolicyError
from streams.policy.client import PolicyClient, Sampling

log = structlog.get_logger()

# Reasons that are not a filter's: no place in a reply, and a writer that did not write.
NO_PLACE, UNAVAILABLE, TOO_LONG = "no_place", "unavailable", "too_long"
_CONCURRENCY = 4
# Refusals in a row after which a server is not asked any more.
_PATIENCE = 8


@dataclass(slots=True)
class Writer:
    """Writes rationales. With `policy` its model `model` is asked for them, else they are composed.

    `refused` counts the requests in a row that the server did not answer.
    """

    places: Places
    seed: int
    policy: PolicyClient | None = None
    model: str = ""
    refused: int = 0

    async def write(self, states: Sequence[ReflectedState]) -> list[Reflection]:
        """The rationales of `states`, kept and dropped, in their order. A state may have one of each writer."""
        limit = asyncio.Semaphore(_CONCURRENCY)

        async def within(state: ReflectedState) -> list[Reflection]:
            async with limit:
                return await self._of(state)

        found = await asyncio.gather(*map(within, states))
        return [reflection for each in found for reflection in each]

    async def _of(self, state: ReflectedState) -> list[Reflection]:
        if not self.places.admits(state.action):
            return [_reflection(state, GROUNDED if self.policy is None else MODEL, dropped=NO_PLACE)]
        asked = [] if self.policy is None else [await self._asked(state, self.policy)]
        # What breaks a rule is not replaced: only what was not written.
        if any(each.dropped not in (UNAVAILABLE, TOO_LONG) for each in asked):
            return asked
        return [*asked, _judged(state, GROUNDED, composed(state, self.seed))]

    async def _asked(self, state: ReflectedState, policy: PolicyClient) -> Reflection:
        if self.refused >= _PATIENCE:
            detail = f"not asked any more after {_PATIENCE} refusals in a row"
            return _reflection(state, MODEL, dropped=UNAVAILABLE, detail=detail)
        sampling = Sampling(temperature=0.7, max_tokens=512, stop=(), seed=self.seed)
        try:
            (reply,) = await policy.chat(self.model, question(state, self.seed), sampling)
        except ContextLengthError as error:
            return _reflection(state, MODEL, dropped=TOO_LONG, detail=str(error))
        # Servers of others answer in many ways, with and without the fields of the API.
        except (PolicyError, ValueError, LookupError, TypeError) as error:
            self.refused += 1
            log.warning("a rationale could not be asked for", state=state.key, reason=str(error))
            return _reflection(state, MODEL, dropped=UNAVAILABLE, detail=f"{type(error).__name__}: {error}")
        self.refused = 0
        return _judged(state, MODEL, escaped(reply.message).text)


async def reflect(
    snapshot: Path,
    settings: LearnerSettings,
    base: Path,
    harness: ChatHarness | None,
    seed: int,
    policy: PolicyClient,
    served: str,
) -> ReflectionFile:
    """The file of the rationales of a snapshot, which is written unless it is there.

    `policy` serves the policy itself as `served`, which writes where the settings name no other server; it is not asked
    where `served` is empty. `harness` reads the policy's replies; None where an agent of its own does. Raises
    `TrainingError` when the snapshot, or a file that is there, cannot be read.
    """
    path = reflections_path(snapshot, settings, base, harness, seed)
    if path.exists():
        return find_reflections(path)
    chosen = settings.reflection
    trajectories = await asyncio.to_thread(read_trajectories, snapshot)
    states = reflected_states(trajectories, chosen.alternatives, chosen.states, seed)
    writer = Writer(await asyncio.to_thread(_places, base, harness, settings.reasoning), seed)
    if chosen.writer == "model" and chosen.url:
        async with PolicyClient(chosen.url, token=chosen.api_key.get_secret_value()) as other:
            written = await replace(writer, policy=other, model=chosen.model).write(states)
    elif chosen.writer == "model":
        asked = replace(writer, policy=policy, model=chosen.model or served, refused=0 if served else _PATIENCE)
        written = await asked.write(states)
    else:
        written = await writer.write(states)
    found = write_reflections(path, written)
    log.info("rationales", snapshot=snapshot.name, states=len(states), counts=found.counts)
    return found


def _places(base: Path, harness: ChatHarness | None, reasoning: bool) -> Places:
    return places(ChatTokenizer(base), harness, reasoning=reasoning)


def _judged(state: ReflectedState, writer: str, written: str) -> Reflection:
    """The rationale in a writer's text, dropped where it breaks a rule."""
    draft = Draft.read(written)
    return _reflection(state, writer, draft.text, reason_to_drop(draft, state))


def _reflection(state: ReflectedState, writer: str, text: str = "", dropped: str = "", detail: str = "") -> Reflection:
    return Reflection(
        episode_id=state.trajectory.episode_id,
        step=state.step,
        writer=writer,
        text=text,
        dropped=dropped,
        detail=detail,
        state=told(state.before[-1:]),
        action=shown(state.action),
        alternatives=tuple(shown(each.action) for each in state.alternatives),
    )
