"""Absolute limits on what one principal, or one story, may teach."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from streams.trust.quota import WINDOW, Admitted, Quota
from streams.trust.settings import QuotaSettings
from streams.trust.simhash import distances, simhash

NOON = datetime(2026, 11, 21, 12)
STORY = (
    "You are in the kitchen. You see a fridge, a wooden table and a wardrobe. take the dirty shirt. You take it. "
    "open the fridge. You open the fridge and find an apple and some milk. put the shirt in the laundry basket."
)


def admitted(principal: str = "p", similarity_hash: int = 0, at: datetime = NOON) -> Admitted:
    return Admitted(principal, similarity_hash, at)


def test_a_principal_is_trusted_up_to_its_daily_quota_and_again_the_next_day() -> None:
    quota = Quota(QuotaSettings(per_principal=2, near_duplicates=100), [admitted(), admitted()])
    assert "2 episodes of the principal" in (quota.refusal(admitted()) or "")
    assert quota.refusal(admitted("other")) is None
    assert quota.refusal(admitted(at=NOON + WINDOW)) is None


def test_similar_episodes_are_trusted_up_to_the_quota_across_principals() -> None:
    quota = Quota(
        QuotaSettings(near_duplicates=2, similarity_hash_bits=1), [admitted("a", 0b000), admitted("b", 0b001)]
    )
    assert (quota.refusal(admitted("c", 0b000)) or "").startswith("flood: 2 episodes")
    assert quota.refusal(admitted("c", 0b110)) is None


def test_what_is_rolled_back_does_not_count_and_what_is_committed_stays() -> None:
    quota = Quota(QuotaSettings(per_principal=2), [admitted()])
    quota.admit(admitted())
    quota.rollback()
    assert quota.refusal(admitted(at=NOON + timedelta(hours=1))) is None
    quota.admit(admitted())
    quota.commit()
    quota.rollback()
    assert quota.refusal(admitted(at=NOON + timedelta(hours=1))) is not None


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(0, 2**64 - 1), st.integers(0, 32))
def test_near_duplicates_are_counted_by_the_bits_in_which_they_differ(stored: list[int], new: int, bits: int) -> None:
    quota = Quota(QuotaSettings(near_duplicates=1, similarity_hash_bits=bits), [admitted("a", one) for one in stored])
    alike = sum((new ^ one).bit_count() <= bits for one in stored)
    refusal = quota.refusal(admitted("b", new))
    assert refusal == (f"flood: {alike} episodes nearly the same within {WINDOW}" if alike else None)


def test_what_has_left_the_window_is_no_duplicate_and_what_came_last_can_be_taken_back() -> None:
    quota = Quota(
        QuotaSettings(near_duplicates=1, similarity_hash_bits=0),
        [admitted("a", 1, NOON), admitted("a", 2, NOON + timedelta(hours=1))],
    )
    quota.admit(admitted("a", 3, NOON + timedelta(hours=2)))
    assert quota.refusal(admitted("b", 1, NOON + WINDOW)) is None
    quota.rollback()
    assert quota.refusal(admitted("b", 3, NOON + WINDOW)) is None
    assert (quota.refusal(admitted("b", 2, NOON + WINDOW)) or "").startswith("flood")


def test_episodes_that_differ_in_numbers_and_spelling_have_one_similarity_hash() -> None:
    assert simhash("Order 17: BUY now!") == simhash("order 9 - buy, now")


def test_one_changed_word_changes_few_bits_and_another_text_many() -> None:
    letter = "Dear customer, your parcel was handed over to the carrier this morning."
    near, far = distances(simhash(STORY), [simhash(STORY.replace("apple", "pear")), simhash(letter)])
    assert near < 12 < far


@given(st.text(max_size=200))
def test_any_text_has_a_similarity_hash_of_64_bits(text: str) -> None:
    assert 0 <= simhash(text) < 2**64
