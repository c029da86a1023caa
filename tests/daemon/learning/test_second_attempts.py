"""Second attempts of a round of practice, from a sandbox through signature, intake and store to what is learned."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from evaluation.episode import Player
from evaluation.practice import Budget, Practised, Round
from learners.objectives import OBJECTIVES
from learners.snapshots import build_snapshot, read_trajectories
from learners.trajectories import INSTRUCTED, LESSON, REFLECTED, Rationale
from ratchet_client.events import Task
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from streams.intake.admission import Admission, AdmissionSettings
from streams.intake.pipeline import Intake
from streams.kafka.records import Received
from streams.policy.client import PolicyClient, Sampling
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.store.queries.learning import LEARNABLE_EPISODES, POLICY_EPISODES
from streams.store.queries.practice import ATTEMPTS_BY_TASK, NEW_PRACTICE
from streams.store.status import PracticeCounts, status
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA
from tests.builders.stored import ServedStore
from tests.faulty import ratchet_faulty
from tests.served import served

pytestmark = pytest.mark.usefixtures("faulty_environments")
KEY = b"the operator's"
ADVICE = "Light the lamp by jo.smith@mail.example.org."
PLACEHOLDER = "<EMAIL_"
# What the policy says unaided: it fails at the first task twice, and at the second once.
UNAIDED = ("sing", "sing", "sing", "sing", "light", "sing", "sing")


@asynccontextmanager
async def policy() -> AsyncIterator[PolicyClient]:
    """One that gives advice when it is asked for a review, and lights the lamp when it has some."""
    app, said = FastAPI(), iter(UNAIDED)

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        system = body["messages"][0]["content"]
        reviews = system.startswith(("You review", "You compare"))
        text = ADVICE if reviews else "light" if ADVICE in system else next(said)
        told = {"content": [{"token": "<|im_end|>", "logprob": -0.5}]}
        return {
            "model": body["model"],
            "choices": [
                {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": told},
            ],
        }

    with served(app) as address:
        async with PolicyClient(address) as client:
            yield client


def train_tasks(count: int) -> list[Task]:
    names = (f"dark/train/{number}" for number in range(40))
    found = [Task(environment="faulty_dark", task_id=name) for name in names if HOLDOUT.split(name) is Split.TRAIN]
    return found[:count]


async def practise(store: ServedStore, second_attempts: float, steps: int = 100) -> Round:
    """Play two groups of two; what is kept goes through the pipeline of the record role."""
    intake = Intake(Admission(AdmissionSettings(), KEY, HOLDOUT), Redactor(RedactionSettings(), b"key"))
    offset = 0

    async def keep(practised: Practised) -> None:
        nonlocal offset
        for event in practised.events:
            value = event.to_json()
            headers = ((SIGNATURE_HEADER, sign(KEY, value).encode()),)
            record = Received(KAFKA.events_topic, 0, offset, b"key", value, headers=headers)
            store.store.append([intake.event(record)])
            offset += 1

    async def at_once() -> bool:
        return True

    async with SandboxPool("faulty_dark") as pool, policy() as client:
        player = Player(client, "ratchet-7", ratchet_faulty.Dark.harness, Sampling(), logprobs=True)
        practice = Round(player, pool, Budget(60, steps, 1), at_once, keep, second_attempts)
        await practice.play(train_tasks(2), 2)
    return practice


async def test_second_attempts_reach_the_objectives_and_count_as_nothing_else(
    served_store: ServedStore, tmp_path: Path
) -> None:
    practice = await practise(served_store, second_attempts=1.0)
    assert (practice.episodes, practice.successes, practice.advised, practice.helped) == (4, 1, 2, 2)
    store = served_store.store
    told = status(store)
    assert told.practice == PracticeCounts(
        episodes=4, successes=1, advised=2, steps=9, tasks={"frontier": 1, "hopeless": 1}
    )
    assert (told.episodes, told.trusted, told.quarantined, told.dead_letters) == ({}, {}, 0, 0)
    assert store.query(LEARNABLE_EPISODES, {"since": -1}).to_pylist() == [{"learnable": 0, "new": 0}]
    assert set(store.query(POLICY_EPISODES).to_pylist()[0].values()) == {0}
    rates = store.query(ATTEMPTS_BY_TASK, {"environment": "faulty_dark"}).to_pylist()
    assert sorted((row["attempts"], row["successes"]) for row in rates) == [(2, 0), (2, 1)]
    assert store.query(NEW_PRACTICE, {"since": -1}).to_pylist() == [{"successes": 1, "groups": 1}]

    async with StoreClient(served_store.url) as client:
        snapshot = await build_snapshot(client, HOLDOUT, tmp_path)
    assert snapshot.manifest.episodes == {
        "practice": 1,
        "practice_failed": 3,
        "practice_reflected": 1,
        "practice_instructed": 1,
    }
    trajectories = read_trajectories(snapshot.folder)
    by_kind = {one.actor_kind: one for one in trajectories}
    reflected, instructed = by_kind[REFLECTED], by_kind[INSTRUCTED]
    bare = next(one for one in trajectories if one.actor_kind == "policy")
    assert reflected.opening == instructed.opening == bare.opening, "the prompt is the one without advice"
    assert reflected.rationales == ()
    (lesson,) = instructed.rationales
    assert lesson == Rationale(0, lesson.text, LESSON)
    assert PLACEHOLDER in lesson.text
    assert "jo.smith" not in str(store.query("SELECT advice FROM transitions").to_pylist())
    assert reflected.log_probabilities == instructed.log_probabilities == ((),)

    def chosen(name: str) -> list[str]:
        return [example.trajectory.episode_id for example in OBJECTIVES[name].examples(trajectories)]

    assert chosen("erl") == [reflected.episode_id]
    assert chosen("mel") == [instructed.episode_id, f"{instructed.episode_id}/lesson/0"]
    won = next(one for one in trajectories if one.success and one.actor_kind == "policy")
    assert set(chosen("self_distillation")) == {reflected.episode_id, won.episode_id}
    assert chosen("rejection_sampling") == [won.episode_id]
    assert set(chosen("grpo")) == {one.episode_id for one in trajectories if one.task_id == won.task_id} - {
        instructed.episode_id
    }


@pytest.mark.parametrize(
    ("share", "steps", "followed_up"), [(0.0, 100, 0), (0.5, 100, 1), (1.0, 4, 0)], ids=["off", "half", "spent"]
)
async def test_as_many_groups_are_followed_up_as_the_share_and_the_budget_allow(
    share: float, steps: int, followed_up: int, served_store: ServedStore
) -> None:
    practice = await practise(served_store, share, steps)
    assert (practice.advised, practice.helped) == (followed_up, followed_up)
    assert status(served_store.store).practice.advised == followed_up
