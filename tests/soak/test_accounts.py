"""What is missing, and whether the documented limits excuse it."""

from tests.soak.accounts import Account, Answer, Calls, Excused, account, strangers

CALLS = Calls((Answer("a", 10.0, "base"), Answer("b", 90.0, "base")), (("va", "a"), ("vb", "b")))


def of(stored: set[str], excused: Excused | None = None) -> Account:
    return account({"e", "f"}, CALLS, stored, excused or Excused())


def test_what_is_all_there_is_not_lost() -> None:
    found = of({"a", "b", "e", "f", "va", "vb", "more"})
    assert (found.lost, found.missing_events, found.missing_calls) == ((), 0, 0)
    assert (found.events, found.calls, found.verdicts) == (2, 2, 2)


def test_an_event_is_excused_where_the_log_that_had_it_went_down() -> None:
    stored = {"a", "b", "f", "va", "vb"}
    assert of(stored).lost == ("e",)
    assert (of(stored, Excused(events={"e"})).lost, of(stored, Excused(events={"e"})).missing_events) == ((), 1)


def test_a_call_is_excused_where_the_gateway_was_killed_soon_after_and_its_feedback_then_has_nothing_to_be_on() -> None:
    stored = {"a", "e", "f", "va"}
    assert of(stored).lost == ("b",)
    assert of(stored, Excused(kills=[100.0])).lost == ()
    assert of(stored, Excused(kills=[130.0])).lost == ("b",)
    assert of(stored, Excused(kills=[80.0])).lost == ("b",)


def test_feedback_on_a_stored_call_is_lost_where_it_is_not_stored_whatever_was_killed() -> None:
    assert of({"a", "b", "e", "f", "va"}, Excused(kills=[100.0])).lost == ("vb",)


def test_calls_are_expected_half_a_minute_after_they_were_answered() -> None:
    assert CALLS.recorded_before(100.0) == {"a"}
    assert CALLS.recorded_before(130.0) == {"a", "b"}


def test_only_the_base_and_what_was_promoted_may_answer() -> None:
    assert strangers({"base", "ratchet-3-0a1b"}, {"0a1bffff"}, "base") == ()
    assert strangers({"ratchet-3-0a1b"}, {"ffff0a1b"}, "base") == ("ratchet-3-0a1b",)
