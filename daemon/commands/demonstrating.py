"""`ratchet environment demonstrate`: the known solutions of train tasks become an expert's episodes."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from daemon.commands.importing import publishing_as
from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.learning.domain import SET, UNSET, domain_tasks, golden_tasks, holdout_of
from daemon.printable import printable
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Actor, Event, OutcomeEvent, StepEvent, Task
from ratchet_client.ids import content_id
from ratchet_client.settings import FrozenModel
from streams.environments.harness import ChatHarness
from streams.errors import SandboxError
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.trust.practice import VERIFIER, practisable


class DemonstrationReport(FrozenModel):
    """The JSON of `ratchet environment demonstrate --json`. `failed` counts tasks by why they are not recorded."""

    environment: str
    train_tasks: int
    recorded: int
    steps: int
    failed: dict[str, int]


def demonstrate(
    tasks: Annotated[int, typer.Option(min=1, help="So many tasks at most are recorded.")] = 100,
    principal: Annotated[str, typer.Option(help="Whose data it is.")] = "demonstrations",
    agent: Annotated[str, typer.Option(help="Who acted.")] = "known-solutions",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Play the solutions, and publish nothing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play the known solutions of the domain's train tasks in a sandbox, and record them as an expert's episodes.

    No held-out task is played. The same tasks may be recorded again: nothing is stored twice.
    """
    settings = Settings.load(config)
    if not settings.domain.environment:
        raise ConfigurationError(f"{UNSET}: {SET}")
    failed: Counter[str] = Counter()
    recorded = steps = 0

    async def work(narrator: Narrator) -> int:
        nonlocal recorded, steps
        pool = sandbox_pool(settings.domain.environment, settings.branching, size=1)
        async with pool:
            found = await trained_on(settings, pool)
            harness = (await pool.describe()).harness
            async for events in demonstrated(pool, found, harness, principal, agent, failed):
                publish(events)
                recorded, steps = recorded + 1, steps + len(events) - 1
                narrator.advance("demonstrations", recorded, min(tasks, len(found)))
                if recorded == tasks:
                    break
            return len(found)

    with publishing_as(settings, principal, dry_run=dry_run) as publish, Narrator() as narrator:
        train_tasks = run_async(work(narrator))
    report = DemonstrationReport(
        environment=settings.domain.environment,
        train_tasks=train_tasks,
        recorded=recorded,
        steps=steps,
        failed=dict(failed),
    )
    for reason, count in failed.most_common():
        typer.echo(printable(f"not recorded: {count} tasks: {reason}"), err=True)
    if as_json:
        print_json(report.model_dump_json())
    else:
        done = "would be recorded" if dry_run else "were recorded"
        typer.echo(f"{recorded} of {train_tasks} train tasks {done} as episodes of {steps} steps")
    if not recorded:
        raise SandboxError(
            f"no task of {settings.domain.environment} has a known solution that succeeds: "
            "`ratchet environment check` says what is wrong with them"
        )


async def trained_on(settings: Settings, pool: SandboxPool) -> tuple[Task, ...]:
    """The domain's tasks that nothing is judged by. Raises `ConfigurationError`."""
    found = await domain_tasks(settings.domain, pool)
    golden = await golden_tasks(found, settings.domain, settings.gate.golden.tasks, pool)
    return practisable(found.tasks, holdout_of(settings), (*golden, *found.unsolvable))


async def demonstrated(
    pool: SandboxPool, tasks: tuple[Task, ...], harness: ChatHarness, principal: str, agent: str, failed: Counter[str]
) -> AsyncIterator[list[Event]]:
    """The events of each task whose known solution succeeds, which are the same each time; others count in `failed`."""
    for task in tasks:
        try:
            actions = await pool.demonstration(task)
            async with pool.fresh_session(VERIFIER) as session:
                first, *answers = await session.replay(task, actions)
        except SandboxError as error:
            failed[str(error)] += 1
            continue
        if not answers or not answers[-1].success:
            failed["its known solution does not succeed" if answers else "it has no known solution"] += 1
            continue
        episode = content_id("demonstration", task.environment, task.task_id)
        messages, tools = harness.opening(first.messages), first.tools or ()
        events: list[Event] = []
        for number, (action, answer) in enumerate(zip(actions, answers, strict=True)):
            step = StepEvent(
                event_id=content_id(episode, str(number)),
                episode_id=episode,
                step=number,
                agent=agent,
                principal=principal,
                task=task,
                tools=tools,
                messages=messages,
                action=action,
                observation=answer.messages,
                done=number == len(answers) - 1,
                actor=Actor(kind="expert"),
            )
            events.append(step)
            messages = harness.extend(messages, action, answer.messages)
            tools = tools if answer.tools is None else answer.tools
        outcome = OutcomeEvent(
            event_id=content_id(episode, "outcome"),
            episode_id=episode,
            verifier=VERIFIER,
            success=True,
            score=answers[-1].score,
            evidence={"known_solution": True},
        )
        yield [*events, outcome]
