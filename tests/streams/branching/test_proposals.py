import random

from hypothesis import given
from hypothesis import strategies as st

from ratchet_client.messages import assistant
from streams.branching.candidates import Proposal, propose
from streams.environments.harness import canonical


def proposals(*actions: str, promising: bool = True) -> list[Proposal]:
    said = map(assistant, actions)
    return [Proposal(action, canonical(action), "policy", promising) for action in said]


FILL = [
    Proposal(assistant(action), action, "valid_actions")
    for action in ("inventory", "look around", "open fridge", "take green t-shirt", "take hat")
]


def test_repeated_actions_the_trusted_action_and_empty_ones_are_not_proposed() -> None:
    sampled = proposals("Open Fridge!", "take hat", "TAKE  hat.", "", "  ")
    chosen = propose(sampled, FILL, {"", "open fridge"}, 3, 1, random.Random(0))
    assert chosen[0].action.text == "take hat"
    assert all(proposal.source == "valid_actions" for proposal in chosen[1:])
    assert len({proposal.key for proposal in chosen} - {"open fridge"}) == 3


def test_what_is_proposed_is_not_proposed_again() -> None:
    seen = {""}
    first = propose(proposals("dance", "sing"), FILL, seen, 2, 0, random.Random(0))
    second = propose(proposals("dance", "sing"), FILL, seen, 10, 0, random.Random(0))
    assert {proposal.key for proposal in first}.isdisjoint(proposal.key for proposal in second)
    assert len(first) + len(second) == 2 + len(FILL)


def test_few_of_the_proposals_are_errors() -> None:
    sampled = proposals(*(f"fly to planet {number}" for number in range(20)), promising=False)
    fill = [Proposal(assistant(f"take thing {number}"), str(number), "valid_actions") for number in range(20)]
    chosen = propose(sampled, fill, {""}, 10, 3, random.Random(0))
    assert [proposal.source for proposal in chosen] == ["policy"] * 3 + ["valid_actions"] * 7


def test_the_refill_depends_on_the_seed_alone() -> None:
    assert propose([], FILL, {""}, 3, 0, random.Random(5)) == propose([], FILL, {""}, 3, 0, random.Random(5))


def test_fewer_are_proposed_where_fewer_exist() -> None:
    assert propose([], FILL[:2], {"look around"}, 3, 0, random.Random(0)) == (FILL[0],)


ACTIONS = st.lists(
    st.builds(
        Proposal, st.text("ab ", max_size=3).map(assistant), st.text("ab", max_size=2), st.just("policy"), st.booleans()
    )
)


@given(ACTIONS, ACTIONS, st.integers(0, 6), st.integers(0, 3))
def test_no_action_is_proposed_twice_and_no_limit_exceeded(
    sampled: list[Proposal], fill: list[Proposal], most: int, errors: int
) -> None:
    seen = {""}
    chosen = propose(sampled, fill, seen, most, errors, random.Random(0))
    keys = [proposal.key for proposal in chosen]
    assert len(keys) == len(set(keys)) <= most
    assert "" not in keys
    assert set(keys) <= seen
