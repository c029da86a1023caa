from ratchet_client.messages import assistant, call, tool_result, user
from streams.environments.harness import ChatHarness, canonical


def test_a_state_is_a_prefix_of_the_next_one() -> None:
    harness = ChatHarness()
    opening = harness.opening((user("Find the coin.\n\nYou are in the kitchen."),))
    state = harness.extend(opening, assistant("take coin"), (user("You take the coin. [score 1.00]"),))
    assert state[: len(opening)] == opening
    assert [message.role for message in state] == ["system", "user", "assistant", "user"]


def test_the_thoughts_before_an_action_are_no_part_of_the_next_state() -> None:
    thoughtful = assistant(None, call("look", "{}", "call_1"), reasoning="Where am I?")
    _, action, answer = ChatHarness(system_prompt="").extend(
        (user("Go."),), thoughtful, (tool_result("Here.", "call_1"),)
    )
    assert action == assistant(None, call("look", "{}", "call_1"))
    assert answer.tool_call_id == "call_1"


def test_an_empty_system_prompt_is_no_message() -> None:
    assert ChatHarness(system_prompt="").opening((user("Go."),)) == (user("Go."),)


def test_a_reply_of_several_lines_is_its_first_line() -> None:
    reply = assistant(" take coin \nand then leave", call("look", "{}"), reasoning="A coin.")
    assert ChatHarness().parse(reply) == assistant("take coin", reasoning="A coin.")


def test_a_whole_reply_keeps_its_calls_and_lines() -> None:
    harness = ChatHarness(reply="message")
    looking = call("look", "{}", "call_1")
    assert harness.parse(assistant(" I look.\nThen I go. ", looking)) == assistant("I look.\nThen I go.", looking)
    assert harness.parse(assistant("  \n", looking)) == assistant(None, looking)


def test_four_answers_in_a_row_that_say_the_same_end_an_episode() -> None:
    harness = ChatHarness()
    state = harness.opening((user("Go."),))
    seen = []
    for number, said in enumerate(("Here.", "No.", "No.", "No.", "No.")):
        called = call("go", "{}", f"call_{number}")
        state = harness.extend(state, assistant(None, called), (tool_result(said, called.id), user("And now?")))
        seen.append(harness.gives_up(state))
    assert seen == [False, False, False, False, True]


def test_spellings_of_one_action_have_one_canonical_form() -> None:
    assert {canonical(assistant(text)) for text in ("take  coin.", "Take coin", " TAKE coin! ")} == {"take coin"}


def test_calls_of_an_environment_without_a_rule_of_its_own_are_told_apart_by_what_they_call() -> None:
    keys = {
        canonical(assistant(text, call(name, arguments, identity)))
        for name, arguments in (("take", '{"what": "coin"}'), ("take", '{"what": "key"}'), ("drop", '{"what": "key"}'))
        for text, identity in ((None, "call_1"), ("I act.", "call_2"))
    }
    assert len(keys) == 3
