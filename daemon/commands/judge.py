"""`ratchet judge`: a model's opinion of episodes becomes outcomes; its agreement with verified ones is shown."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.commands.options import ConfigOption, JsonOption, find_kafka, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.printable import printable
from evaluation.judges import JudgeClient, Rubric
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import OutcomeEvent
from ratchet_client.ids import content_id
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from ratchet_client.messages import MESSAGE, MESSAGES, Messages
from ratchet_client.settings import FrozenModel
from streams.errors import PolicyError
from streams.kafka.clients import producer
from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from streams.store.episode_state import EpisodeState
from streams.store.episodes import newest_episodes
from streams.store.queries.episodes import STEPS_OF_EPISODE
from streams.trust.agreement import Agreement
from streams.trust.rules import MODEL_JUDGE

_ACKNOWLEDGE_TIMEOUT_S = 30.0
_NEVER = (EpisodeState.REVOKED, EpisodeState.FLAGGED)


class JudgeReport(FrozenModel):
    """The JSON of `ratchet judge --json`. `abstained` ones have no outcome, nor have `unanswered` ones."""

    verifier: str
    judged: int = 0
    successes: int = 0
    abstained: int = 0
    unanswered: int = 0
    published: int = 0
    outcomes: tuple[OutcomeEvent, ...] = ()


def judge(
    rubric: Annotated[Path | None, typer.Option(help="A text file: what a success is.", dir_okay=False)] = None,
    model: Annotated[str, typer.Option(help="The name of the judging model; the verifier is `model:NAME`.")] = "",
    base_url: Annotated[str, typer.Option(help="Its server, with or without /v1; by default the engine.")] = "",
    api_key: Annotated[str, typer.Option(envvar="JUDGE_API_KEY", help="A bearer token for it.")] = "",
    episode: Annotated[list[str] | None, typer.Option(help="The id of an episode; else the newest.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 100,
    pairs: Annotated[
        bool, typer.Option("--pairwise", help="Compare episodes of the same task; the better one is a success.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask, and publish nothing.")] = False,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Ask nothing; show how far judges agree with verified outcomes.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a model for its opinion of episodes. Its outcomes alone trust nothing, unless `trust.model_judges` says so.

    A failure it sees counts like any other: measure its agreement first, with --dry-run or on few episodes.
    """
    settings = Settings.load(config)
    if agreement:
        _tell_agreement(run_async(_agreement(settings)), as_json=as_json)
        return
    if rubric is None or not model:
        raise typer.BadParameter("name a --rubric and a --model, or ask for the --agreement")
    try:
        text = rubric.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the rubric {rubric} cannot be read: {error}") from error
    work = _judge(settings, Rubric(text), model, base_url, api_key, episode or [], limit, pairs=pairs, dry_run=dry_run)
    report = run_async(work)
    if as_json:
        print_json(report.model_dump_json())
        return
    typer.echo(
        f"{report.verifier} judged {report.judged} episodes: {report.successes} successes, "
        f"{report.abstained} without an opinion, {report.unanswered} not answered; "
        f"{report.published} outcomes published"
    )


async def _judge(
    settings: Settings,
    rubric: Rubric,
    model: str,
    base_url: str,
    api_key: str,
    ids: Sequence[str],
    limit: int,
    *,
    pairs: bool,
    dry_run: bool,
) -> JudgeReport:
    report, own = JudgeReport(verifier=MODEL_JUDGE + model), settings.serving
    key = own.engine_key.get_secret_value()
    async with (
        StoreClient(settings.store_url) as store,
        JudgeClient(base_url or own.inference_url, model, api_key or ("" if base_url else key)) as judge,
    ):
        if not ids:
            newest = await newest_episodes(store, None, limit)
            ids = [one.episode_id for one in newest if one.steps and one.state not in _NEVER]
        episodes = {each: rows for each in ids if (rows := await _rows(store, each))}
        with Narrator() as narrator:
            ask = _compare if pairs else _rate
            outcomes, abstained, unanswered = await ask(judge, rubric, episodes, narrator)
        published = 0
        if outcomes and not dry_run:
            principals = {each: str(rows[0]["principal"]) for each, rows in episodes.items()}
            await asyncio.to_thread(_publish, settings, await find_kafka(settings), outcomes, principals)
            published = len(outcomes)
    return report.model_copy(
        update={
            "judged": len(episodes),
            "successes": sum(outcome.success for outcome in outcomes),
            "abstained": abstained,
            "unanswered": unanswered,
            "published": published,
            "outcomes": tuple(outcomes),
        }
    )


_Rows = list[dict[str, Any]]
_Judged = tuple[list[OutcomeEvent], int, int]


async def _rate(judge: JudgeClient, rubric: Rubric, episodes: dict[str, _Rows], narrator: Narrator) -> _Judged:
    outcomes, abstained, unanswered = [], 0, 0
    for number, (episode_id, rows) in enumerate(episodes.items(), 1):
        try:
            opinion = await judge.opinion(rubric, _conversation(rows))
        except PolicyError:
            unanswered += 1
        else:
            if opinion is None:
                abstained += 1
            else:
                success, score = opinion.verdict == "success", opinion.score
                evidence: dict[str, object] = {"reason": opinion.reason}
                outcomes.append(_outcome(judge, rubric, episode_id, rows, score, evidence, success=success))
        narrator.advance("judged", number, len(episodes))
    return outcomes, abstained, unanswered


async def _compare(judge: JudgeClient, rubric: Rubric, episodes: dict[str, _Rows], narrator: Narrator) -> _Judged:
    """Each episode with the next one of its task. One that won more is a success, one that lost more a failure."""
    tasks: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for episode_id, rows in episodes.items():
        tasks[rows[0]["environment"], rows[0]["task_id"], rows[0]["seed"]].append(episode_id)
    couples = [couple for alike in tasks.values() for couple in pairwise(alike)]
    points: dict[str, list[float]] = defaultdict(list)
    unanswered = 0
    for number, (one, other) in enumerate(couples, 1):
        try:
            better = await judge.preferred(rubric, _conversation(episodes[one]), _conversation(episodes[other]))
        except PolicyError:
            unanswered += 1
        else:
            if better is not None:
                won = {"one": 1.0, "other": 0.0, "tie": 0.5}[better]
                points[one].append(won)
                points[other].append(1 - won)
        narrator.advance("compared", number, len(couples))
    outcomes = [
        _outcome(judge, rubric, each, episodes[each], score, {"compared": len(won)}, success=score > 0.5)
        for each, won in points.items()
        if (score := sum(won) / len(won)) != 0.5
    ]
    return outcomes, len(episodes) - len(outcomes), unanswered


def _outcome(
    judge: JudgeClient,
    rubric: Rubric,
    episode_id: str,
    rows: _Rows,
    score: float,
    evidence: Mapping[str, object],
    *,
    success: bool,
) -> OutcomeEvent:
    """The outcome of an opinion; the same opinion of the same steps is the same event."""
    by = content_id("rubric", rubric.text)[:16]
    said = (MODEL_JUDGE + judge.model, by, episode_id, str(rows[-1]["sequence"]), f"{score} {success}")
    return OutcomeEvent(
        event_id=content_id("judge", *said),
        episode_id=episode_id,
        verifier=MODEL_JUDGE + judge.model,
        success=success,
        score=score,
        evidence={"rubric": by, "steps": len(rows), **evidence},
    )


def _conversation(rows: _Rows) -> Messages:
    last = max(rows, key=lambda row: (row["step"], row["sequence"]))
    shown = MESSAGES.validate_json(last["messages"])
    return (*shown, MESSAGE.validate_json(last["action"]), *MESSAGES.validate_json(last["observation"]))


async def _rows(store: StoreClient, episode_id: str) -> _Rows:
    return list((await store.query(STEPS_OF_EPISODE, {"episode_id": episode_id})).to_pylist())


def _publish(
    settings: Settings, kafka: KafkaSettings, outcomes: Sequence[OutcomeEvent], principals: dict[str, str]
) -> None:
    keys = settings.admission.principals
    with producer("judge", kafka.bootstrap, kafka.security, "ask again: nothing is stored twice") as client:
        sent = []
        for outcome in outcomes:
            value = outcome.to_json()
            # Any known principal may sign an outcome.
            key = keys.get(principals[outcome.episode_id]) or next(iter(keys.values()), None)
            signature = (
                [] if key is None else [(SIGNATURE_HEADER, sign(key.get_secret_value().encode(), value).encode())]
            )
            sent.append(
                client.send(kafka.events_topic, key=outcome.episode_id.encode(), value=value, headers=signature)
            )
        for future in sent:
            future.get(timeout=_ACKNOWLEDGE_TIMEOUT_S)


async def _agreement(settings: Settings) -> dict[str, Agreement]:
    async with StoreClient(settings.store_url) as store:
        return (await store.status()).judges


def _tell_agreement(judges: dict[str, Agreement], *, as_json: bool) -> None:
    if as_json:
        figures = {
            name: {"episodes": each.episodes, "accuracy": each.accuracy, "interval": each.interval, "kappa": each.kappa}
            for name, each in judges.items()
        }
        print_json(json.dumps(figures))
        return
    for name, each in judges.items():
        typer.echo(printable(f"{name} {each.words()}"))
    if not judges:
        typer.echo("no model has judged an episode yet")
