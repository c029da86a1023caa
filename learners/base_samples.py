"""The base model's own answers, on which the policy is trained as well to stay near it: self-distillation.

They are to prompts that the operator chose, one a line, and not to states of episodes: there the base's answer would
contradict the trusted action, and it would be data of a principal that may revoke consent. A prompt is asked once of
one base model; the answers are kept in a file. Sources: *Self-Distillation Bridges Distribution Gap in Language Model
Fine-Tuning* (arXiv 2402.13669); *LAMOL* (arXiv 1909.03329) for replay of a language model's own samples.
"""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from learners.trajectories import BASE_SAMPLE, Trajectory
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, user
from streams.branch_events import RecordedStep
from streams.errors import TrainingError
from streams.policy.client import PolicyClient, Sampling
from streams.runtime.files import write_atomically
from streams.trust.holdout import HoldoutSettings, Split

# At temperature 1, as the base model is, and not as its likeliest answers are.
_SAMPLING = Sampling(temperature=1.0, max_tokens=512, seed=0)
_ANSWERS = TypeAdapter(dict[str, Message | None])
_MOST_NAMES = 10_000


async def base_samples(
    prompts: Path, policy: PolicyClient, model: str, digest: str, home: Path, holdout: HoldoutSettings
) -> tuple[Trajectory, ...]:
    """A trajectory of one step for each line of `prompts` that `model`, whose weights have `digest`, answers.

    Answers that did not come to their end, or are empty, are left out. Those that were given already are read from a
    file in `home`.

    Raises:
        TrainingError: the prompts cannot be read, or all tasks are held out.
        PolicyError: the inference server does not answer.
    """
    asked = _read(prompts)
    kept = home / f"{digest}.json"
    answers = _answers(kept)
    missing = [prompt for prompt in asked if prompt not in answers]
    try:
        for prompt in missing:
            (reply,) = await policy.chat(model, (user(prompt),), _SAMPLING)
            whole = reply.finish_reason == "stop" and reply.message.text.strip()
            answers[prompt] = reply.message.spoken() if whole else None
    finally:
        if missing:
            write_atomically(kept, _ANSWERS.dump_json(answers, exclude_none=False))
    return tuple(
        Trajectory(
            episode_id=content_id(BASE_SAMPLE, digest, prompt),
            task_id=_task_id(prompt, holdout),
            opening=(user(prompt),),
            steps=(RecordedStep(action=answer, observation=()),),
            actor_kind=BASE_SAMPLE,
        )
        for prompt in asked
        if (answer := answers[prompt]) is not None
    )


def _answers(kept: Path) -> dict[str, Message | None]:
    """The answers in a file, by prompt; None for one that was not whole. A damaged file has none."""
    try:
        return _ANSWERS.validate_json(kept.read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}


def _read(prompts: Path) -> list[str]:
    """The lines that are not empty, each once."""
    try:
        lines = prompts.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{prompts} cannot be read: {error}. Correct learner.replay.base_prompts.") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _task_id(prompt: str, holdout: HoldoutSettings) -> str:
    """A task of the train split that stands for the prompt."""
    names = (f"{BASE_SAMPLE}/{content_id(prompt)}/{attempt}" for attempt in range(_MOST_NAMES))
    found = next((name for name in names if holdout.split(name) is Split.TRAIN), None)
    if found is None:
        raise TrainingError("no task is in the train split, so no answer can be replayed: hold out fewer tasks")
    return found
