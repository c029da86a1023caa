"""A packed tree says of every token exactly what a sequence of its own would say."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from learners import tree_attention
from learners.chat import ChatTokenizer
from learners.objectives import OBJECTIVES
from learners.packing import Tree, TreePacker, Weights, predictors
from learners.trainer import tree_loss
from learners.trajectories import Branch, Trajectory
from learners.tree_attention import Segment, tree_layout
from streams.environments.harness import ChatHarness
from streams.events import Message, RecordedStep

EVERYTHING = Weights(actions=1.0, observations=1.0, branch_observations=1.0)


def branch(step: int, action: str) -> Branch:
    return Branch(step, action, f"You {action}. Nothing happens. [score 0.00]", "policy", "sandbox_exact")


TRAJECTORY = Trajectory(
    episode_id="a",
    task_id="twc/train/1",
    opening=ChatHarness().opening("Put the things away.\n\nYou are in the kitchen."),
    steps=(
        RecordedStep(action="open fridge", observation="You open the fridge. [score 0.00]"),
        RecordedStep(action="take plate", observation="You take the dirty plate. [score 0.50]"),
        RecordedStep(action="put plate in sink", observation="You put the plate in the sink. [score 1.00]"),
    ),
    branches=(branch(0, "look"), branch(0, "dance"), branch(1, "take the cup"), branch(2, "eat plate")),
)


@pytest.fixture(scope="module")
def packer(tiny_base: Path) -> TreePacker:
    return TreePacker(ChatTokenizer(tiny_base), 2048)


def model(base: Path, attention: str) -> LlamaForCausalLM:
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=attention)
    return cast(LlamaForCausalLM, loaded.eval())


@pytest.fixture(scope="module")
def in_trees(tiny_base: Path) -> LlamaForCausalLM:
    return model(tiny_base, tree_attention.NAME)


@pytest.fixture(scope="module")
def plain(tiny_base: Path) -> LlamaForCausalLM:
    """The same weights with the attention that Transformers itself has."""
    return model(tiny_base, "eager")


def packed_logprobs(model: LlamaForCausalLM, tree: Tree) -> list[float]:
    with torch.inference_mode():
        hidden = model.model(
            input_ids=tree.ids[None], position_ids=tree.positions[None], use_cache=False, tree=tree.layout
        ).last_hidden_state[0]
        scores = model.lm_head(hidden[tree.predictors]).log_softmax(dim=-1)
    return list(scores.gather(1, tree.ids[tree.targets][:, None])[:, 0].tolist())


def own_logprobs(model: LlamaForCausalLM, tokenizer: ChatTokenizer, trajectory: Trajectory) -> Iterator[float]:
    """The log-probability of every counted token, from one plain sequence for each branch and the trajectory."""
    chat = list(trajectory.opening)
    states = []
    for step in trajectory.steps:
        states.append(list(chat))
        chat += [Message(role="assistant", content=step.action), Message(role="user", content=step.observation)]
    yield from chat_logprobs(model, tokenizer, chat, set(range(len(trajectory.opening), len(chat))))
    for alternative in trajectory.branches:
        answer = Message(role="user", content=alternative.observation)
        chat = [*states[alternative.step], Message(role="assistant", content=alternative.action), answer]
        yield from chat_logprobs(model, tokenizer, chat, {len(chat) - 1})


def chat_logprobs(
    model: LlamaForCausalLM, tokenizer: ChatTokenizer, chat: list[Message], counted: set[int]
) -> Iterator[float]:
    targets: list[int] = []
    for number in sorted(counted):
        before, message = chat[:number], chat[number]
        assistant = message.role == "assistant"
        turn = tokenizer.reply(before, message) if assistant else tokenizer.observation([*before, message])
        targets += range(*turn.written)
    ids = tokenizer.prompt(chat, generation=False)
    with torch.inference_mode():
        scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    return (float(scores[target - 1, ids[target]]) for target in targets)


def test_every_counted_token_is_as_likely_as_in_a_sequence_of_its_own(
    packer: TreePacker, in_trees: LlamaForCausalLM, plain: LlamaForCausalLM, tiny_base: Path
) -> None:
    packed = packed_logprobs(in_trees, packer.pack(TRAJECTORY, EVERYTHING))
    assert packed == pytest.approx(list(own_logprobs(plain, ChatTokenizer(tiny_base), TRAJECTORY)), abs=1e-4)


def test_the_loss_is_the_sum_over_counted_tokens(packer: TreePacker, in_trees: LlamaForCausalLM) -> None:
    tree = packer.pack(TRAJECTORY, EVERYTHING)
    loss = tree_loss(in_trees, tree).item()
    assert loss == pytest.approx(-sum(packed_logprobs(in_trees, tree)), rel=1e-5)
    halved = packer.pack(TRAJECTORY, Weights(actions=0.5, observations=0.5, branch_observations=0.5))
    assert tree_loss(in_trees, halved).item() == pytest.approx(loss / 2, rel=1e-5)


def test_branches_that_do_not_fit_are_left_out_and_the_others_unchanged(packer: TreePacker, tiny_base: Path) -> None:
    whole = packer.pack(TRAJECTORY, EVERYTHING)
    tight = TreePacker(ChatTokenizer(tiny_base), whole.length - 1).pack(TRAJECTORY, EVERYTHING)
    assert sum(group.stop - group.start for group in tight.layout.groups) > 0
    assert tight.length < whole.length
    assert torch.equal(tight.ids, whole.ids[: tight.length])
    assert torch.equal(tight.positions, whole.positions[: tight.length])


def test_a_branch_that_does_not_fit_costs_no_later_one_its_place(packer: TreePacker, tiny_base: Path) -> None:
    alone = packer.pack(replace(TRAJECTORY, branches=(branch(1, "look"),)), EVERYTHING)
    long, short = branch(0, "sing " * 50), branch(1, "look")
    tight = TreePacker(ChatTokenizer(tiny_base), alone.length).pack(
        replace(TRAJECTORY, branches=(long, short, long)), EVERYTHING
    )
    assert torch.equal(tight.ids, alone.ids)
    assert torch.equal(tight.positions, alone.positions)


def test_a_reference_trajectory_is_never_cut(packer: TreePacker, tiny_base: Path) -> None:
    alone = packer.pack(replace(TRAJECTORY, branches=()), EVERYTHING)
    tight = TreePacker(ChatTokenizer(tiny_base), alone.length // 2).pack(TRAJECTORY, EVERYTHING)
    assert torch.equal(tight.ids, alone.ids)


def test_imitation_counts_the_actions_and_the_end_of_their_turns(packer: TreePacker, tiny_base: Path) -> None:
    tree = OBJECTIVES["imitation"].pack(TRAJECTORY, packer)
    tokenizer = ChatTokenizer(tiny_base)
    said = "".join(f"{step.action}<|im_end|>" for step in TRAJECTORY.steps)
    assert tree.ids[tree.targets].tolist() == tokenizer.encode(said)
    assert tree.layout.groups == ()


def test_the_error_before_a_recovery_is_not_imitated(packer: TreePacker, tiny_base: Path) -> None:
    recovery = replace(TRAJECTORY, learn_from=1)
    tree = OBJECTIVES["imitation"].pack(recovery, packer)
    said = "".join(f"{step.action}<|im_end|>" for step in TRAJECTORY.steps[1:])
    assert tree.ids[tree.targets].tolist() == ChatTokenizer(tiny_base).encode(said)
    assert torch.equal(tree.ids, OBJECTIVES["imitation"].pack(TRAJECTORY, packer).ids)


def test_the_world_model_counts_observations_of_the_trajectory_and_of_its_branches(
    packer: TreePacker, tiny_base: Path
) -> None:
    tree = OBJECTIVES["world_model"].pack(TRAJECTORY, packer)
    tokenizer = ChatTokenizer(tiny_base)
    answers = [*(step.observation for step in TRAJECTORY.steps), *(one.observation for one in TRAJECTORY.branches)]
    assert tree.ids[tree.targets].tolist() == tokenizer.encode("".join(f"{answer}<|im_end|>" for answer in answers))


def test_trajectories_without_branches_or_without_actions_give_no_example_of_that_objective() -> None:
    lone = Trajectory(episode_id="b", task_id="t", opening=TRAJECTORY.opening, steps=TRAJECTORY.steps)
    assert not OBJECTIVES["world_model"].applies(lone)
    assert OBJECTIVES["imitation"].applies(lone)
    assert not OBJECTIVES["imitation"].applies(Trajectory("c", "t", TRAJECTORY.opening, ()))


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """A reference trajectory, and branches anywhere on it in any order."""
    reference = draw(st.integers(2, 12))
    found = [Segment(0, reference, -1)]
    for parent_end in draw(st.lists(st.integers(0, reference - 1), max_size=5)):
        start = found[-1].stop
        found.append(Segment(start, start + draw(st.integers(1, 4)), parent_end))
    return found


@given(tree=segments(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_attention_over_any_tree_is_attention_over_each_of_its_paths(tree: list[Segment], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    length, size = tree[-1].stop, 4
    query = torch.randn(1, 4, length, size, generator=generator)
    key, value = (torch.randn(1, 2, length, size, generator=generator) for _ in range(2))
    mixed, _ = tree_attention.tree_attention(
        torch.nn.Identity(), query, key, value, None, scaling=0.5, tree=tree_layout(tree)
    )
    wide_key, wide_value = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    for segment in tree:
        for token in range(segment.start, segment.stop):
            seen = [*range(segment.parent_end + 1), *range(segment.start, token + 1)]
            weights = (query[:, :, [token]] @ wide_key[:, :, seen].transpose(2, 3) * 0.5).softmax(dim=-1)
            alone = (weights @ wide_value[:, :, seen]).transpose(1, 2)
            assert torch.allclose(mixed[:, [token]], alone, atol=1e-5)


@given(tree=segments())
def test_a_token_is_predicted_from_the_one_it_follows_in_its_own_branch(tree: list[Segment]) -> None:
    found = predictors(tree, range(tree[-1].stop))
    for segment in tree:
        assert found[segment.start : segment.stop] == [segment.parent_end, *range(segment.start, segment.stop - 1)]
