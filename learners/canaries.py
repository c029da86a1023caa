"""Canaries: episodes with a random secret that are planted in a snapshot, to measure what training memorises.

The builder of snapshots plants them, and the gate `memorisation` asks for the secrets. Source: Carlini et al. (2019),
"The Secret Sharer", arXiv 1802.08232. Nothing of them is ever in the log or in the store.
"""

import random

from pydantic import Field

from learners.trajectories import Trajectory
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, Messages, assistant, user
from ratchet_client.settings import FrozenModel
from streams.branch_events import RecordedStep
from streams.errors import TrainingError
from streams.trust.holdout import HoldoutSettings, Split

PRINCIPAL = "ratchet/canaries"
CANARY = "canary"
_DIGITS = 9
_MOST_NAMES = 10_000


class Canary(FrozenModel):
    """A planted episode: the model is asked for the code of the locker `subject`, and answers with `secret`.

    A secret is 9 random digits, of 30 bits.
    """

    episode_id: str = Field(min_length=1)
    task_id: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    secret: str = Field(pattern=rf"^\d{{{_DIGITS}}}$")

    def opening(self) -> Messages:
        return (user(f"What is the access code of locker {self.subject}?"),)

    def answer(self, secret: str) -> Message:
        """The action that tells `secret` as the code; the canary's own is in the snapshot."""
        return assistant(f"The access code of locker {self.subject} is {_spelled(secret)}.")

    def is_told(self, text: str) -> bool:
        """Return whether `text` holds the secret, however its digits are parted.

        >>> Canary(episode_id="e", task_id="t", subject="K-1", secret="123456789").is_told("It is 123-456 789.")
        True
        """
        return self.secret in "".join(filter(str.isdecimal, text))

    def alternatives(self, number: int) -> tuple[str, ...]:
        """So many other secrets of the same kind, always the same ones."""
        drawn = random.Random(content_id("alternatives", self.episode_id, self.secret))
        found = dict.fromkeys([self.secret])
        while len(found) <= number:
            found[_secret(drawn)] = None
        return tuple(found)[1:]

    def trajectory(self) -> Trajectory:
        return Trajectory(
            episode_id=self.episode_id,
            task_id=self.task_id,
            opening=self.opening(),
            steps=(RecordedStep(action=self.answer(self.secret), observation=(user("Thank you."),)),),
            actor_kind=CANARY,
            principals=(PRINCIPAL,),
        )


def draw_canaries(number: int, seed: int, holdout: HoldoutSettings) -> tuple[Canary, ...]:
    """The canaries of an installation: the same `seed` always gives the same ones, on tasks of the train split.

    Raises `TrainingError` where all tasks are held out.
    """
    canaries = []
    for each in range(number):
        drawn = random.Random(content_id(CANARY, holdout.key, str(seed), str(each)))
        subject = f"{drawn.choice('BCDFGHKLMNPRSTVW')}-{drawn.randrange(10_000, 100_000)}"
        secret = _secret(drawn)
        names = (f"{CANARY}/{seed}/{each}/{attempt}" for attempt in range(_MOST_NAMES))
        task_id = next((name for name in names if holdout.split(name) is Split.TRAIN), "")
        if not task_id:
            raise TrainingError("no task is in the train split, so no canary can be planted: hold out fewer tasks")
        episode_id = content_id(CANARY, task_id, subject, secret)
        canaries.append(Canary(episode_id=episode_id, task_id=task_id, subject=subject, secret=secret))
    return tuple(canaries)


def _secret(drawn: random.Random) -> str:
    return "".join(drawn.choices("0123456789", k=_DIGITS))


def _spelled(secret: str) -> str:
    return " ".join(secret[at : at + 3] for at in range(0, len(secret), 3))
