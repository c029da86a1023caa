from streams.environments.harness import ChatHarness, canonical


def test_a_state_is_a_prefix_of_the_next_one() -> None:
    harness = ChatHarness()
    opening = harness.opening("Find the coin.\n\nYou are in the kitchen.")
    state = harness.extend(opening, "take coin", "You take the coin. [score 1.00]")
    assert state[: len(opening)] == opening
    assert [message.role for message in state] == ["system", "user", "assistant", "user"]


def test_a_reply_of_several_lines_is_its_first_line() -> None:
    assert ChatHarness().parse(" take coin \nand then leave") == "take coin"


def test_spellings_of_one_action_have_one_canonical_form() -> None:
    assert {canonical(text) for text in ("take  coin.", "Take coin", " TAKE coin! ")} == {"take coin"}
