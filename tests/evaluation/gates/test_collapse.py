"""The gate `collapse`: its decision from replies that are written here, and its figures from a real server."""

import math
from dataclasses import replace

import pytest

from evaluation.gates.collapse import Collapse, Divergence, Speech, divergence, signs, states_of
from evaluation.gates.gate import Evidence
from evaluation.gates.verdict import Verdict
from evaluation.rollouts import Pair
from evaluation.scored_replies import ScoredReply, State
from evaluation.settings import CollapseSettings, GateSettings
from learners.held_out_states import RecordedState
from ratchet_client.messages import Messages, assistant, user
from streams.errors import GateError
from streams.policy.client import PolicyClient
from tests.builders.trained import tool
from tests.builders.trials import BASE, CANDIDATE, evidence, rollout, tasks

SETTINGS = CollapseSettings()
SANE = Speech(entropy=1.0, length=8.0, distinct=(0.5, 0.8, 0.9), commonest=0.1)


def replies(texts: list[str], own: float = -1.0, other: float = -1.0) -> list[ScoredReply]:
    """Replies whose every word is a token of these log-probabilities."""
    return [ScoredReply(assistant(text), (own,) * len(text.split()), (other,) * len(text.split())) for text in texts]


def said(candidate: Speech, kl: float = 0.1, champion: Speech = SANE, *, of_base: bool = False) -> str:
    return " ".join(signs(Divergence(champion, candidate, kl), SETTINGS, of_base=of_base))


def test_a_models_speech_is_summed_up_from_its_replies() -> None:
    speech = Speech.of(replies(["take the plate", "Take the plate.", "open fridge"], own=-0.5))
    assert speech.entropy == pytest.approx(0.5)
    assert speech.length == pytest.approx(8 / 3)
    assert speech.distinct == pytest.approx((7 / 9, 5 / 6, 1.0), abs=0.2)
    assert speech.commonest == pytest.approx(2 / 3)


def test_the_divergence_is_per_token_and_of_the_candidate_from_the_champion() -> None:
    assert divergence([*replies(["a b c"], -0.5, -2.5), *replies(["d"], -1.0, -1.0)]) == pytest.approx(1.5)


@pytest.mark.parametrize("other", [math.nan, -math.inf])
def test_a_divergence_that_is_no_finite_number_is_no_figure(other: float) -> None:
    with pytest.raises(GateError, match="not a finite number"):
        divergence(replies(["a b"], -0.5, other))


def test_replies_that_are_all_empty_tell_nothing() -> None:
    with pytest.raises(GateError, match="empty"):
        Speech.of(replies(["", ""]))


def test_a_candidate_within_its_bounds_shows_no_sign() -> None:
    assert said(SANE) == ""
    assert said(replace(SANE, entropy=0.001)) == "", "entropy alone is reported and not gated"


def test_every_sign_of_a_collapse_is_told() -> None:
    assert "4.00 nats per token" in said(SANE, kl=4.0)
    assert "2-grams" in said(replace(SANE, distinct=(0.1, 0.3, 0.4)))
    assert "times as long" in said(replace(SANE, length=40.0))
    assert "times as long" in said(replace(SANE, length=1.0))
    assert "one and the same reply at 95%" in said(replace(SANE, commonest=0.95))
    assert "entropy" in said(replace(SANE, entropy=0.001, length=40.0))


def test_a_reply_that_the_champion_gives_as_often_is_no_sign() -> None:
    assert said(replace(SANE, commonest=0.95), champion=replace(SANE, commonest=0.96)) == ""


def test_a_first_candidate_may_speak_quite_unlike_the_base_model_but_not_like_noise() -> None:
    rambling = Speech(entropy=2.5, length=16.0, distinct=(0.6, 0.9, 0.95), commonest=0.02)
    trained = Speech(entropy=0.05, length=3.0, distinct=(0.1, 0.3, 0.4), commonest=0.95)
    assert said(trained, kl=6.0, champion=rambling, of_base=True) == ""
    assert said(trained, kl=6.0, champion=rambling) != ""
    assert "nats" in said(trained, kl=13.0, champion=rambling, of_base=True)


def test_a_damaged_figure_is_outside_of_every_bound() -> None:
    assert "nats" in said(SANE, kl=math.nan)


CHAT: Messages = (user("You are in the kitchen."), assistant("look around"), user("You see a plate."))


def with_chats(trial: Evidence, count: int) -> Evidence:
    trial.pairs += [
        Pair(task, replace(played, messages=(*CHAT, assistant(f"take plate {number}"))), played)
        for number, task in enumerate(tasks(count))
        for played in [rollout(task, True)]
    ]
    return trial


def test_states_are_those_before_the_champions_actions_and_always_the_same_ones() -> None:
    trial = with_chats(evidence(), 8)
    states = states_of(trial, 100)
    assert {len(state.messages) for state in states} == {len(CHAT[:1]), len(CHAT)}
    assert len(states) == 16
    assert states_of(trial, 5) == states[:5]


def test_states_offer_the_tools_of_their_episode_and_recorded_ones_do_where_nothing_was_played() -> None:
    trial, tools = with_chats(evidence(), 1), (tool("search", "query"),)
    (pair,) = trial.pairs
    trial.pairs = [replace(pair, champion=replace(pair.champion, tools=tools))]
    assert [state.tools for state in states_of(trial, 9)] == [tools, tools]
    trial.pairs = []
    trial.recorded = (RecordedState("e", "t", 0, CHAT, tools, assistant("open")),)
    assert states_of(trial, 9) == [State(CHAT, tools)]


async def test_without_any_state_nothing_is_judged() -> None:
    with pytest.raises(GateError, match="no held-out state"):
        await Collapse(GateSettings()).judge(evidence())


async def test_a_model_does_not_diverge_from_itself(policy: PolicyClient) -> None:
    trial = with_chats(evidence(), 4)
    trial.arena = replace(trial.arena, policy=policy)
    trial.champion, trial.candidate = BASE, replace(CANDIDATE, served="base")
    told: list[tuple[int, int]] = []
    trial.progress = lambda gate, done, total: told.append((done, total))
    result = await Collapse(GateSettings(collapse=CollapseSettings(prompts=8, max_tokens=8))).judge(trial)
    assert result.verdict is Verdict.PROMOTE, result.reason
    assert result.figures["kl_per_token"] == pytest.approx(0, abs=1e-3)
    assert result.figures["entropy_ratio"] == pytest.approx(1)
    assert result.figures["unscored"] == 0
    assert told[-1] == (16, 16)
