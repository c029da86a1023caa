"""Recordings are redacted and sandboxes are not: states behind placeholders, in real sandboxes."""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import FunctionCall, Message, Messages, assistant, call, text_of, tool_result, user
from streams.branch_events import BranchRequest, BranchResult, RecordedStep
from streams.branching.branch import branch
from streams.branching.raw_values import RawValues
from streams.branching.recovery import recover
from streams.branching.selectors import Uniform
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.policy.served import Samples
from streams.redaction.redactor import Redactor
from streams.redaction.settings import Kind, RedactionSettings
from streams.sandboxes.pool import SandboxPool
from tests.builders.branch_requests import played
from tests.builders.policies import ExpertPolicy, FixedPolicy, said
from tests.builders.redacted import redacted
from tests.builders.selectors import Late

pytestmark = pytest.mark.usefixtures("faulty_environments")

POST, MAILBOX = (Task(environment=f"faulty_{name}", task_id="mail/train/1") for name in ("post", "mailbox"))
SETTINGS = BranchingSettings(alternatives=4, samples=4, invalid_share=1)
RAW = ("bob@example.com", "carol@example.com", "help@example.org", "tr0ub4dor-x9")
LOOKS, LOOKS_UP = assistant("look"), assistant(None, call("contacts", "{}", "call_1"))


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(RedactionSettings(), b"key")


@pytest.fixture
async def post() -> AsyncIterator[SandboxPool]:
    async with SandboxPool("faulty_post") as pool:
        yield pool


@pytest.fixture
async def mailbox() -> AsyncIterator[SandboxPool]:
    async with SandboxPool("faulty_mailbox") as pool:
        yield pool


def placeholder(redactor: Redactor, value: str, context: str = "") -> str:
    """The placeholder of `value` in the episode of the tests."""
    text, _ = redactor.redact_text(context + value, "episode-1")
    return text.removeprefix(context)


async def recorded(pool: SandboxPool, redactor: Redactor, *actions: Message) -> BranchRequest:
    """An episode of `actions` as the record role stores it."""
    task = POST if pool.environment == "faulty_post" else MAILBOX
    return redacted(await played(pool, task, actions), redactor)


async def branched(
    request: BranchRequest, pool: SandboxPool, redactor: Redactor | None, replies: Messages = ()
) -> tuple[BranchResult, ...]:
    return await branch(request, pool, FixedPolicy(replies), Uniform(), SETTINGS, redactor=redactor)


def answers(result: BranchResult) -> dict[str, str]:
    return {each.action.text: text_of(each.observation) for each in result.alternatives}


def assert_hidden(results: Sequence[BranchResult], redactor: Redactor) -> None:
    """The results hold nothing raw, and the record role finds nothing more in them."""
    for result in results:
        assert redactor.redact_result(result) == (result, Counter())
    written = b"".join(result.to_json() for result in results)
    assert not [value for value in RAW if value.encode() in written]


async def test_every_state_of_a_text_game_that_shows_an_address_is_restored(
    post: SandboxPool, redactor: Redactor
) -> None:
    request = await recorded(post, redactor, LOOKS, assistant("mail bob@example.com"))
    bob = placeholder(redactor, "bob@example.com")
    assert request.opening[-1].text == f"A letter for {bob} lies here."
    assert request.steps[1].action.text == f"mail {bob}"
    results = await branched(request, post, redactor, said(f"mail {bob}", "mail nobody@example.com"))
    assert [(result.fidelity, result.reason) for result in results] == [("sandbox_exact", "")] * 2
    assert answers(results[0])[f"mail {bob}"] == f"It goes to {bob}."
    nobody = placeholder(redactor, "nobody@example.com")
    assert answers(results[0])[f"mail {nobody}"] == f"You cannot mail {nobody}."
    # The recorded action is not tried again, whether it is spelled with the address or its placeholder.
    assert f"mail {bob}" not in answers(results[1])
    assert {each.source for each in results[1].alternatives if each.action.text in ("look", "read")} == {
        "valid_actions"
    }
    assert_hidden(results, redactor)


async def test_a_state_behind_an_action_that_names_a_placeholder_is_restored(
    post: SandboxPool, redactor: Redactor
) -> None:
    actions = ("read", "open tr0ub4dor-x9", "mail help@example.org", "look", "read")
    request = await recorded(post, redactor, *said(*actions))
    # The game alone says that it is a password; said without that word, it stays.
    assert request.steps[1].action.text == "open tr0ub4dor-x9"
    address = placeholder(redactor, "help@example.org")
    assert request.steps[2].action.text == f"mail {address}"
    results = await branched(request, post, redactor)
    assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}


async def test_a_policy_that_names_the_placeholder_of_a_secret_acts_with_the_secret_and_does_not_learn_it(
    post: SandboxPool, redactor: Redactor
) -> None:
    request = await recorded(post, redactor, *said("read", "look"))
    secret = placeholder(redactor, "tr0ub4dor-x9", "password=")
    assert secret in text_of(request.steps[0].observation)
    results = await branched(request, post, redactor, said(f"open {secret}"))
    for result in results:
        assert answers(result)[f"open {secret}"] == f"You whisper {secret}, and the door opens."
    assert_hidden(results, redactor)


async def test_calls_whose_arguments_hold_a_placeholder_are_restored_and_mutated(
    mailbox: SandboxPool, redactor: Redactor
) -> None:
    carols = call("send", '{"to": "carol@example.com", "text": "Dear \\"Carol\\""}', "call_2")
    request = await recorded(
        mailbox,
        redactor,
        LOOKS_UP,
        assistant(None, carols),
        assistant("To Bob now.", call("send", '{"to": "bob@example.com"}', "call_3")),
    )
    bob, carol = (placeholder(redactor, f"{name}@example.com") for name in ("bob", "carol"))
    (sent,) = request.steps[1].action.calls
    assert sent.function is not None
    assert sent.function.arguments == f'{{"to": "{carol}", "text": "Dear \\"Carol\\""}}'
    assert request.steps[1].observation == (tool_result(f'{{"sent": "{carol}"}}', "call_2"),)
    proposed = assistant(None, call("send", f'{{"to": "{bob}", "text": "Hello"}}', "call_9"))
    results = await branched(request, mailbox, redactor, (proposed,))
    assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}
    for result in results:
        by_policy = next(each for each in result.alternatives if each.source == "policy")
        assert by_policy.action == proposed
        assert by_policy.observation == (tool_result(f'{{"sent": "{bob}"}}', "call_9"),)
        assert by_policy.done
    mutated = [
        argument
        for each in results[2].alternatives
        if each.source == "mutation"
        for argument in each.action.calls
        if argument.function is not None
    ]
    assert mutated
    assert_hidden(results, redactor)


@pytest.mark.parametrize("spelling", ["BOB@example.com", "<its placeholder>"])
async def test_a_value_in_a_spelling_that_is_not_shown_is_not_guessed(
    post: SandboxPool, redactor: Redactor, spelling: str
) -> None:
    bob = placeholder(redactor, "bob@example.com")
    spelled = spelling.replace("<its placeholder>", bob)
    request = await recorded(post, redactor, *said(f"mail {spelled}", "look", "look"))
    assert request.steps[0].action.text == f"mail {bob}"
    assert text_of(request.steps[0].observation) == f"You cannot mail {bob}."
    results = await branched(request, post, redactor)
    # The game takes the spelling that it shows.
    assert [result.fidelity for result in results] == ["sandbox_exact", "dropped", "dropped"]
    differs = "the sandbox shows something else than was recorded after action 1"
    assert results[1].reason == f"{differs}: 'It goes to {bob}.'"


async def test_a_value_that_the_sandbox_never_shows_drops_the_states_behind_it_and_the_reason_says_so(
    post: SandboxPool, redactor: Redactor
) -> None:
    request = await recorded(post, redactor, *said("look", "mail eve@example.net", "look", "read"))
    eve = placeholder(redactor, "eve@example.net")
    results = await branched(request, post, redactor)
    assert [result.fidelity for result in results] == ["sandbox_exact", "sandbox_exact", "dropped", "dropped"]
    assert results[2].reason == f"the raw value of {eve} in action 2 is not known: the sandbox has not shown it"
    assert results[2].reason == results[3].reason


async def test_numbers_and_members_with_secret_names_in_arguments_are_put_in_as_they_were(
    mailbox: SandboxPool, redactor: Redactor
) -> None:
    dials = assistant(None, call("send", '{"to": "x", "phone": 4155552671, "text": "call (415) 555-2671"}', "call_2"))
    logs_in = assistant(None, call("send", '{"to": "x", "password": "hunter\\"2"}', "call_3"))
    request = await recorded(mailbox, redactor, LOOKS_UP, dials, logs_in, LOOKS_UP, LOOKS_UP)
    phone = placeholder(redactor, "(415) 555-2671")
    (sent,) = request.steps[1].action.calls
    assert sent.function is not None
    assert sent.function.arguments == f'{{"to": "x", "phone": "{phone}", "text": "call {phone}"}}'
    results = await branched(request, mailbox, redactor)
    assert [result.fidelity for result in results] == ["sandbox_exact"] * 2 + ["dropped"] * 3
    # Had the sandbox shown them, they would be put in: as a number where a number was.
    values = RawValues(redactor, "episode-1")
    values.shown(['{"phone": 4155552671}', '{"password": "hunter\\"2"}'])
    as_number = FunctionCall(name="send", arguments='{"to": "x", "phone": 4155552671, "text": "call 4155552671"}')
    assert as_number in [each.calls[0].function for each in values.spellings(request.steps[1].action)]
    (as_it_was,) = values.spellings(request.steps[2].action)
    assert as_it_was == logs_in


async def test_text_that_only_looks_like_a_placeholder_changes_nothing(post: SandboxPool, redactor: Redactor) -> None:
    sign = "<EMAIL_0a1b2c>"
    request = await recorded(post, redactor, *said("look", f"read {sign}", f"mail {sign}", "mail bob@example.com"))
    assert text_of(request.steps[0].observation).endswith(sign)
    results = await branched(request, post, redactor, said(f"sing {sign}", "sing <EMAIL_ffffff>"))
    assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}
    assert answers(results[3])[f"sing {sign}"] == f"You cannot sing {sign}."
    assert answers(results[0])["sing <EMAIL_ffffff>"] == "You cannot sing <EMAIL_ffffff>."


async def test_what_differs_besides_placeholders_is_not_the_recorded_state(
    post: SandboxPool, redactor: Redactor
) -> None:
    request = await recorded(post, redactor, *said("read", "look", "look"))
    (shown,) = request.steps[0].observation
    for other in (shown.text + ".", shown.text.replace("The back", "The front"), "The back says: password=secret"):
        step = RecordedStep(action=request.steps[0].action, observation=(user(other),))
        altered = request.model_copy(update={"steps": (step, *request.steps[1:])})
        results = await branched(altered, post, redactor)
        assert [result.fidelity for result in results] == ["sandbox_exact", "dropped", "dropped"]
        assert "after action 1" in results[1].reason
        assert_hidden(results, redactor)


async def test_another_key_than_that_of_the_recording_is_named(post: SandboxPool, redactor: Redactor) -> None:
    request = await recorded(post, redactor, *said("look", "read"))
    results = await branched(request, post, Redactor(RedactionSettings(), b"another key"))
    assert {result.fidelity for result in results} == {"dropped"}
    assert "give this branch worker the redaction.key of the record role" in results[0].reason


async def test_episodes_that_are_not_redacted_are_restored_and_leave_as_they_are(post: SandboxPool) -> None:
    for exempt in (
        RedactionSettings(enabled=False),
        RedactionSettings(simulators=frozenset({"faulty_post"})),
        RedactionSettings(kinds=frozenset({Kind.IBAN})),
    ):
        request = await played(post, POST, said("look", "mail bob@example.com", "read"))
        results = await branched(request, post, Redactor(exempt, b"key"), said("mail help@example.org"))
        assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}
        assert answers(results[0])["mail help@example.org"] == "It goes to help@example.org."
        assert answers(results[0])["mail bob@example.com"] == "It goes to bob@example.com."


async def test_a_sandbox_that_dies_is_replaced_by_one_in_the_same_raw_state(
    post: SandboxPool, redactor: Redactor
) -> None:
    request = await recorded(post, redactor, *said("read", "mail bob@example.com"))

    killed: list[int] = []

    class Killer(FixedPolicy):
        async def sample(self, *arguments: object) -> Samples:
            if not killed:
                killed.extend(post.pids)
                os.kill(killed[0], signal.SIGKILL)
            return Samples()

    results = await branch(request, post, Killer(), Uniform(), SETTINGS, redactor=redactor)
    assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}
    assert answers(results[0])[f"mail {placeholder(redactor, 'bob@example.com')}"]
    assert_hidden(results, redactor)


async def test_a_failed_episode_is_recovered_from_with_the_raw_value(post: SandboxPool, redactor: Redactor) -> None:
    request = await recorded(post, redactor, *said("read", "dance", "dance"))
    failed = request.model_copy(update={"verdict": "failed"})
    bob = placeholder(redactor, "bob@example.com")
    policy = ExpertPolicy({text_of(failed.steps[1].observation): assistant(f"mail {bob}")})
    settings = BranchingSettings(recovery=RecoverySettings(attempts=1))
    result = await recover(failed, post, policy, Late(), settings, redactor=redactor)
    (recovery,) = result.recoveries
    assert recovery.left_at == 2
    assert [(step.action.text, text_of(step.observation)) for step in recovery.steps] == [
        (f"mail {bob}", f"It goes to {bob}.")
    ]
    assert b"bob@example.com" not in result.to_json()
    # Two steps: the first is not what wins, and what it shows is read by the policy with placeholders.
    elsewhere = ExpertPolicy(
        {
            text_of(failed.steps[1].observation): assistant("read"),
            text_of(failed.steps[0].observation): assistant(f"mail {bob}"),
        }
    )
    result = await recover(failed, post, elsewhere, Late(), settings, redactor=redactor)
    (recovery,) = result.recoveries
    assert [step.action.text for step in recovery.steps] == ["read", f"mail {bob}"]
