"""Where prompts are placed, and which tokens they need not compute again."""

import numpy as np

from daemon.inference.slots import Placement, SharedTokens, SlotTable, Tokens


def tokens(*values: int) -> Tokens:
    return np.array(values, dtype=np.int32)


def run_of(start: int, count: int) -> Tokens:
    return np.arange(start, start + count, dtype=np.int32)


def finish(table: SlotTable, placement: Placement | None, prompt: Tokens) -> int:
    """Compute the whole prompt and release its slot."""
    assert placement is not None
    table.computed(placement.slot, len(prompt))
    table.release(placement.slot)
    return placement.slot


def test_a_prompt_that_continues_an_idle_slot_takes_it_over() -> None:
    table = SlotTable(4, 64)
    first = run_of(1, 30)
    slot = finish(table, table.place(first), first)
    assert table.place(np.concatenate([first, tokens(99)])) == Placement(slot, 30, None)


def test_the_last_token_of_a_known_prompt_is_computed_again_for_its_logits() -> None:
    table = SlotTable(4, 64)
    prompt = run_of(1, 30)
    slot = finish(table, table.place(prompt), prompt)
    assert table.place(prompt) == Placement(slot, 29, None)


def test_a_short_prefix_of_a_long_chat_is_copied_so_that_the_chat_stays() -> None:
    table = SlotTable(4, 128)
    reference = run_of(1, 100)
    slot = finish(table, table.place(reference), reference)
    branch = np.concatenate([reference[:40], tokens(500)])
    placement = table.place(branch)
    assert placement is not None
    assert (placement.reused, placement.copy_from) == (40, slot)
    assert placement.slot != slot


def test_a_busy_slot_is_copied_from_and_never_taken() -> None:
    table = SlotTable(2, 64)
    prompt = run_of(1, 20)
    running = table.place(prompt)
    assert running is not None
    table.computed(running.slot, 20)
    second = table.place(prompt)
    assert second == Placement(1 - running.slot, 19, running.slot)


def test_a_prompt_waits_for_the_prefill_of_what_it_shares() -> None:
    table = SlotTable(4, 128)
    reference = run_of(1, 60)
    running = table.place(reference)
    assert running is not None
    assert table.place(reference[:50]) is None
    table.computed(running.slot, 60)
    placement = table.place(reference[:50])
    assert placement is not None
    assert placement.reused == 49


def test_the_least_recently_used_slot_is_given_away() -> None:
    table = SlotTable(3, 64)
    prompts = [run_of(100 * number, 20) for number in range(1, 4)]
    slots = [finish(table, table.place(prompt), prompt) for prompt in prompts]
    again = table.place(np.concatenate([prompts[0], tokens(7)]))
    finish(table, again, prompts[0])
    placement = table.place(run_of(900, 20))
    assert placement is not None
    assert placement.slot == slots[1]


def test_a_prompt_whose_only_idle_slot_holds_its_prefix_cuts_it_there() -> None:
    table = SlotTable(1, 128)
    reference = run_of(1, 100)
    finish(table, table.place(reference), reference)
    assert table.place(np.concatenate([reference[:10], run_of(500, 5)])) == Placement(0, 10, None)
    table.computed(0, 15)
    table.release(0)
    # What was cut off is forgotten.
    assert table.place(reference) == Placement(0, 10, None)


def test_no_more_of_a_known_prompt_is_reused_than_is_allowed() -> None:
    table = SlotTable(4, 64)
    prompt = run_of(1, 30)
    slot = finish(table, table.place(prompt), prompt)
    assert table.place(prompt, most=20) == Placement(slot, 20, None)
    assert table.place(prompt, most=0) == Placement(1, 0, None)


def table_with(*prompts: Tokens) -> SlotTable:
    """A table whose slots hold the prompts in order, computed."""
    table = SlotTable(len(prompts), 2048)
    for prompt in prompts:
        placement = table.place(prompt)
        assert placement is not None
        table.computed(placement.slot, len(prompt))
    return table


def test_slots_that_begin_alike_share_what_they_have_in_common() -> None:
    first, second = run_of(1, 700), run_of(5000, 800)
    ends = [run_of(start, count) for start, count in ((1000, 3), (2000, 90), (3000, 1))]
    table = table_with(
        *(np.concatenate([prefix, end]) for end in ends for prefix in (first, second)), run_of(9000, 900)
    )
    assert table.shared_prefixes(range(7)) == [SharedTokens((0, 2, 4), 700), SharedTokens((1, 3, 5), 800)]


def test_a_shared_prefix_ends_before_what_is_not_computed() -> None:
    prompt = run_of(1, 700)
    table = table_with(prompt, prompt, prompt)
    table.computed(1, 600)
    assert table.shared_prefixes([0, 1, 2]) == [SharedTokens((0, 1, 2), 600)]


def test_too_little_is_not_worth_sharing() -> None:
    prompt = run_of(1, 700)
    table = table_with(prompt, prompt, prompt)
    assert table.shared_prefixes([0, 1]) == []
    assert table_with(run_of(1, 40), run_of(1, 40)).shared_prefixes([0, 1]) == []
