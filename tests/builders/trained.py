"""What the learner reads, what it is told, and adapters as it enters them."""

from pathlib import Path

from learners.adapters import AdapterManifest, AdapterStore
from learners.settings import LearnerSettings, LoraSettings, Stage
from learners.snapshots import Snapshot, SnapshotManifest
from learners.trajectories import Branch, Trajectory
from ratchet_client.messages import Message, ToolDefinition, Tools, assistant, user
from streams.branch_events import RecordedStep
from streams.environments.harness import ChatHarness


def step(action: str | Message, *observation: str | Message, tools: Tools | None = None) -> RecordedStep:
    """A step; texts are an assistant's and a user's."""
    said = tuple(each if isinstance(each, Message) else user(each) for each in observation)
    return RecordedStep(action=assistant(action) if isinstance(action, str) else action, observation=said, tools=tools)


def tool(name: str, *parameters: str) -> ToolDefinition:
    """A tool whose parameters are all texts."""
    schema: ToolDefinition = {
        "type": "object",
        "properties": {parameter: {"type": "string"} for parameter in parameters},
        "required": list(parameters),
    }
    return {"type": "function", "function": {"name": name, "description": f"To {name}.", "parameters": schema}}


def branch(number: int, action: str | Message, *observation: str | Message) -> Branch:
    """What a policy would have done at state `number`, and what came back."""
    taken = step(action, *observation)
    return Branch(number, taken.action, taken.observation, "policy", "sandbox_exact")


def trajectory(number: int, task_id: str = "twc/train/0") -> Trajectory:
    """One step of an expert, and one alternative to it."""
    return Trajectory(
        episode_id=f"episode-{number}",
        task_id=task_id,
        opening=ChatHarness().opening((user(f"Put away object {number}.\n\nYou are in the kitchen."),)),
        steps=(step(f"take object {number}", "Taken. [score 1.00]"),),
        branches=(branch(0, "sing", "You sing. [score 0.00]"),),
    )


def attempt(
    number: int,
    *actions: str | Message,
    score: float,
    task_id: str = "twc/train/0",
    adapter: str = "a" * 64,
    log_probabilities: tuple[tuple[float, ...], ...] = (),
) -> Trajectory:
    """A practised attempt at a task; it succeeded with a score of 1. A later attempt has a greater `number`."""
    return Trajectory(
        episode_id=f"episode-{number:04}",
        task_id=task_id,
        opening=ChatHarness().opening((user(f"Put the things of {task_id} away.\n\nYou are in the kitchen."),)),
        steps=tuple(step(action, "Done.") for action in actions),
        actor_kind="policy",
        adapter=adapter,
        origin="practice",
        success=score == 1.0,
        score=score,
        log_probabilities=log_probabilities,
    )


def settings(*stages: Stage, lora: LoraSettings | None = None) -> LearnerSettings:
    """A training that takes seconds."""
    chosen = stages or (Stage(objective="world_model", updates=4), Stage(objective="imitation", updates=8))
    return LearnerSettings(stages=chosen, lora=lora or LoraSettings(rank=4, alpha=8), learning_rate=5e-3, threads=1)


def manifest_without_data(note: str) -> AdapterManifest:
    """The manifest of an adapter whose snapshot is empty and lies nowhere."""
    nothing = SnapshotManifest(
        snapshot_id="0" * 64, as_of=0, offsets={}, episodes={}, steps=0, branches=0, holdout="", files={}
    )
    return AdapterManifest(
        parent=None,
        base="tiny",
        base_digest="b" * 64,
        snapshot=nothing,
        settings=LearnerSettings(),
        seed=0,
        note=note,
    )


def entered(home: Path, snapshot: Snapshot, parent: str | None = None, weights: str = "weights") -> str:
    """The digest of an adapter that was trained on `snapshot`, which lies in `home`/snapshots, from `parent`.

    Its manifest is true; its weights are a word, since nothing here computes with them.
    """
    trained = home / "training"
    trained.mkdir(parents=True, exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "probes.json"):
        (trained / name).write_text(weights)
    manifest = AdapterManifest(
        parent=parent,
        base="smollm2-135m-instruct",
        base_digest="b" * 64,
        snapshot=snapshot.manifest,
        settings=LearnerSettings(),
        seed=0,
    )
    return AdapterStore(home / "adapters").add(trained, manifest)
