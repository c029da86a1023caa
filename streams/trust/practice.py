"""Practice: episodes that Ratchet plays itself, in sandboxes, on tasks that no gate judges by.

Pure. `may_be_practised` alone decides on a task: the learner asks it before it plays one, the record role before it
stores a step, and nothing else that is played may be told to be practice.
"""

from collections.abc import Collection, Iterable

from ratchet_client.events import Event, OutcomeEvent, RetractionEvent, StepEvent, Task, family
from streams.trust.holdout import HoldoutSettings, Split

# What practice is signed in the name of, and who verifies it. No agent's episode is practice because it bears the name.
PRINCIPAL = "ratchet"
AGENT = "ratchet-practice"
VERIFIER = "environment"


def agent_of(group: str) -> str:
    """The agent that practice of the adapter of `group` is recorded as; the default group's name is empty.

    >>> agent_of(""), agent_of("acme")
    ('ratchet-practice', 'ratchet-practice/acme')
    """
    return f"{AGENT}/{group}" if group else AGENT


def may_be_practised(task_id: str, holdout: HoldoutSettings, kept: Collection[str] = ()) -> bool:
    """Return whether a task may be played for practice: one of the train split that no variant of `kept` is.

    `kept` are the ids of further tasks that something is judged by, such as those out of domain or without a solution.

    >>> everything = HoldoutSettings(selection=0, confirmation=0)
    >>> may_be_practised("orders/17", everything), may_be_practised("orders/17", everything, ["orders/17~late"])
    (True, False)
    """
    return holdout.split(task_id) is Split.TRAIN and family(task_id) not in {family(other) for other in kept}


def practisable(tasks: Iterable[Task], holdout: HoldoutSettings, kept: Iterable[Task]) -> tuple[Task, ...]:
    """Those of the tasks that may be practised, each once."""
    families = frozenset(family(task.task_id) for task in kept)
    found = {task.task_id: task for task in tasks if may_be_practised(task.task_id, holdout, families)}
    return tuple(found.values())


def is_practice(event: Event) -> bool:
    """Return whether an event says that it is practice."""
    return not isinstance(event, RetractionEvent) and event.origin == "practice"


def why_not_practice(event: Event, holdout: HoldoutSettings) -> str | None:
    """Return why an event that says so is not practice, whoever signed it, or None."""
    if isinstance(event, StepEvent):
        if event.principal != PRINCIPAL:
            return f"practice is of the principal {PRINCIPAL} alone"
        if event.actor.kind != "policy":
            return "practice is played by a policy"
        if not may_be_practised(event.task.task_id, holdout):
            return "a held-out task must not be practised"
    if isinstance(event, OutcomeEvent) and event.verifier != VERIFIER:
        return f"practice is verified by the {VERIFIER} alone"
    return None
