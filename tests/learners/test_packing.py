"""A packed tree says of every token exactly what a sequence of its own would say."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from learners import tree_attention
from learners.chat import ChatTokenizer
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.packed_tree import Tree, predictors
from learners.packing import TreePacker, Weights
from learners.trajectories import Branch, Trajectory
from learners.tree_attention import Segment, tree_layout
from ratchet_client.messages import Message, Tools, assistant, call, text_of, tool_result, user
from streams.branch_events import RecordedStep
from streams.environments.harness import ChatHarness
from tests.builders.trained import branch, step, tool
from tests.builders.trees import path, tree_loss

EVERYTHING = Weights(actions=1.0, observations=1.0, branch_observations=1.0)


def tried(number: int, action: str) -> Branch:
    return branch(number, action, f"You {action}. Nothing happens. [score 0.00]")


TRAJECTORY = Trajectory(
    episode_id="a",
    task_id="twc/train/1",
    opening=ChatHarness().opening((user("Put the things away.\n\nYou are in the kitchen."),)),
    steps=(
        step("open fridge", "You open the fridge. [score 0.00]"),
        step("take plate", "You take the dirty plate. [score 0.50]"),
        step("put plate in sink", "You put the plate in the sink. [score 1.00]"),
    ),
    branches=(tried(0, "look"), tried(0, "dance"), tried(1, "take the cup"), tried(2, "eat plate")),
)

TOOLS = (tool("search", "query"), tool("opening_hours", "place"))
# Parallel calls, results of tools, two messages of a user, and a tool that is offered later.
WITH_TOOLS = Trajectory(
    episode_id="b",
    task_id="t",
    opening=(Message(role="system", content="Help."), user("When can I go to the baths?")),
    steps=(
        step(
            assistant(
                "I look.", call("opening_hours", '{"place": "baths"}', "a"), call("search", '{"query": "é"}', "b")
            ),
            tool_result("Open at 9.", "a"),
            tool_result("Nothing found.", "b"),
            tools=TOOLS,
        ),
        step("At nine.", "And now?", "Be quick."),
        step(assistant(None, call("wait", "{}", "c")), tool_result("Done.", "c"), tools=(*TOOLS, tool("wait"))),
    ),
    branches=(
        branch(0, assistant(None, call("search", '{"query": "baths"}', "d")), tool_result("Closed today.", "d")),
        branch(1, "I do not know.", "Look again."),
    ),
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


def own_logprobs(
    model: LlamaForCausalLM, tokenizer: ChatTokenizer, trajectory: Trajectory
) -> dict[tuple[int, ...], float]:
    """The log-probability of every counted token behind those before it, from one plain sequence for each turn."""
    turns = []
    states = [trajectory.opening]
    for number, taken in enumerate(trajectory.steps):
        turns.append(tokenizer.reply(states[-1], taken.action, trajectory.tools(number)))
        states.append((*states[-1], taken.action, *taken.observation))
        if taken.observation:
            turns.append(tokenizer.observation(states[-1], len(taken.observation), trajectory.tools(number)))
    for one in trajectory.branches:
        chat = (*states[one.step], one.action, *one.observation)
        turns.append(tokenizer.observation(chat, len(one.observation), trajectory.tools(one.step)))
    found: dict[tuple[int, ...], float] = {}
    for turn in turns:
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([turn.ids])).logits[0].log_softmax(dim=-1)
        found |= {turn.ids[: at + 1]: float(scores[at - 1, turn.ids[at]]) for at in range(*turn.written)}
    return found


@pytest.mark.parametrize("trajectory", [TRAJECTORY, WITH_TOOLS], ids=["texts", "tools"])
def test_every_counted_token_is_as_likely_as_in_a_sequence_of_its_own(
    packer: TreePacker, in_trees: LlamaForCausalLM, plain: LlamaForCausalLM, tiny_base: Path, trajectory: Trajectory
) -> None:
    tree = packer.pack(trajectory, EVERYTHING)
    packed = {(*path(tree, at), int(tree.ids[at])): index for index, at in enumerate(tree.targets.tolist())}
    values = packed_logprobs(in_trees, tree)
    expected = own_logprobs(plain, ChatTokenizer(tiny_base), trajectory)
    assert packed.keys() == expected.keys()
    assert [values[packed[key]] for key in expected] == pytest.approx(list(expected.values()), abs=1e-4)


def test_a_change_of_tools_makes_branches_of_the_states_that_were_served_others(packer: TreePacker) -> None:
    same = replace(WITH_TOOLS, branches=(), steps=tuple(replaced_tools(WITH_TOOLS.steps, TOOLS)))
    assert packer.pack(same, EVERYTHING).layout.groups == ()
    changed = packer.pack(replace(WITH_TOOLS, branches=()), EVERYTHING)
    assert len(changed.layout.groups) > 0


def replaced_tools(steps: tuple[RecordedStep, ...], tools: Tools) -> Iterator[RecordedStep]:
    for number, one in enumerate(steps):
        yield one.model_copy(update={"tools": None if number else tools})


def test_an_observation_of_no_messages_ends_an_episode_and_counts_nothing(packer: TreePacker, tiny_base: Path) -> None:
    silent = replace(TRAJECTORY, branches=(), steps=(*TRAJECTORY.steps, step("wait")))
    tokenizer = ChatTokenizer(tiny_base)
    observed = packer.pack(silent, Weights(observations=1.0))
    answers = "".join(f"{text_of(one.observation)}<|im_end|>" for one in TRAJECTORY.steps)
    assert observed.ids[observed.targets].tolist() == tokenizer.encode(answers)
    acted = packer.pack(silent, Weights(actions=1.0))
    assert acted.ids[acted.targets].tolist()[-2:] == tokenizer.encode("wait<|im_end|>")


@pytest.mark.parametrize(
    "action",
    [
        assistant(None),
        assistant("  "),
        assistant(None, reasoning="Hm."),
        *(
            assistant("Now.", call("look", text, "1"))
            for text in ('{"at": "fr', "5", "[1]", '{"x": NaN}', '{"x": 1e999}')
        ),
    ],
)
def test_an_action_that_says_nothing_or_calls_malformed_is_seen_and_not_imitated(
    action: Message, packer: TreePacker, tiny_base: Path
) -> None:
    steps = (step(action, "Well?"), step("wait"))
    acted = packer.pack(replace(TRAJECTORY, branches=(), steps=steps), Weights(actions=1.0))
    assert acted.ids[acted.targets].tolist() == ChatTokenizer(tiny_base).encode("wait<|im_end|>")


def test_arguments_nested_without_end_are_packed(packer: TreePacker) -> None:
    for depth in (70, 400, 600):
        deep = assistant(None, call("look", '{"at":' + "[" * depth + "]" * depth + "}", "1"))
        assert packer.pack(replace(TRAJECTORY, branches=(), steps=(step(deep, "Well?"),)), EVERYTHING).length


def test_the_world_model_counts_all_messages_that_answer_calls_as_one(packer: TreePacker, tiny_base: Path) -> None:
    tree = packer.pack(WITH_TOOLS, Weights(observations=1.0))
    said = ChatTokenizer(tiny_base).tokenizer.decode(tree.ids[tree.targets].tolist())
    between = "\n</tool_response>\n<tool_response>\n"
    assert f"Open at 9.{between}Nothing found.\n</tool_response><|im_end|>" in said
    assert "And now?<|im_end|>\n<|im_start|>user\nBe quick.<|im_end|>" in said


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
    alone = packer.pack(replace(TRAJECTORY, branches=(tried(1, "look"),)), EVERYTHING)
    long, short = tried(0, "sing " * 50), tried(1, "look")
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
    tree = OBJECTIVES["imitation"].pack(Example(TRAJECTORY), packer)
    tokenizer = ChatTokenizer(tiny_base)
    said = "".join(f"{one.action.text}<|im_end|>" for one in TRAJECTORY.steps)
    assert tree.ids[tree.targets].tolist() == tokenizer.encode(said)
    assert tree.layout.groups == ()


def test_the_error_before_a_recovery_is_not_imitated(packer: TreePacker, tiny_base: Path) -> None:
    recovery = replace(TRAJECTORY, learn_from=1)
    tree = OBJECTIVES["imitation"].pack(Example(recovery), packer)
    said = "".join(f"{one.action.text}<|im_end|>" for one in TRAJECTORY.steps[1:])
    assert tree.ids[tree.targets].tolist() == ChatTokenizer(tiny_base).encode(said)
    assert torch.equal(tree.ids, OBJECTIVES["imitation"].pack(Example(TRAJECTORY), packer).ids)


def test_the_world_model_counts_observations_of_the_trajectory_and_of_its_branches(
    packer: TreePacker, tiny_base: Path
) -> None:
    tree = OBJECTIVES["world_model"].pack(Example(TRAJECTORY), packer)
    tokenizer = ChatTokenizer(tiny_base)
    answers = [*(one.observation for one in TRAJECTORY.steps), *(one.observation for one in TRAJECTORY.branches)]
    said = "".join(f"{text_of(answer)}<|im_end|>" for answer in answers)
    assert tree.ids[tree.targets].tolist() == tokenizer.encode(said)


def test_trajectories_without_branches_or_without_actions_give_no_example_of_that_objective() -> None:
    lone = Trajectory(episode_id="b", task_id="t", opening=TRAJECTORY.opening, steps=TRAJECTORY.steps)
    assert not OBJECTIVES["world_model"].examples([lone])
    assert OBJECTIVES["imitation"].examples([lone])
    assert not OBJECTIVES["imitation"].examples([Trajectory("c", "t", TRAJECTORY.opening, ())])


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """A first segment, and branches anywhere on it or on each other in any order."""
    found = [Segment(0, draw(st.integers(2, 12)), -1)]
    for _ in range(draw(st.integers(0, 6))):
        start = found[-1].stop
        found.append(Segment(start, start + draw(st.integers(1, 4)), draw(st.integers(0, start - 1))))
    return found


def before(tree: list[Segment], segment: Segment) -> list[int]:
    """The tokens that lead to a segment."""
    if segment.parent_end < 0:
        return []
    parent = next(each for each in tree if each.start <= segment.parent_end < each.stop)
    return [*before(tree, parent), *range(parent.start, segment.parent_end + 1)]


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
    assert tree_layout(tree).positions.tolist() == [
        len(before(tree, segment)) + own for segment in tree for own in range(segment.stop - segment.start)
    ]
    for segment in tree:
        for token in range(segment.start, segment.stop):
            seen = [*before(tree, segment), *range(segment.start, token + 1)]
            weights = (query[:, :, [token]] @ wide_key[:, :, seen].transpose(2, 3) * 0.5).softmax(dim=-1)
            alone = (weights @ wide_value[:, :, seen]).transpose(1, 2)
            assert torch.allclose(mixed[:, [token]], alone, atol=1e-5)


@pytest.mark.parametrize("window", [None, 150])
def test_the_kernel_for_gpus_gives_what_scaled_dot_products_give(window: int | None) -> None:
    branches = [(parent_end, length) for parent_end in (0, 130, 299) for length in (1, 40, 150)]
    tree = [Segment(0, 300, -1)]
    for parent_end, length in [*branches, (700, 90), (900, 9)]:  # the last two continue branches
        tree.append(Segment(tree[-1].stop, tree[-1].stop + length, parent_end))
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, tree[-1].stop, 16, generator=generator)
    key, value = (torch.randn(1, 2, tree[-1].stop, 16, generator=generator) for _ in range(2))
    layout = tree_layout(tree)
    expected, _ = tree_attention.tree_attention(
        torch.nn.Identity(), query, key, value, None, scaling=0.2, sliding_window=window, tree=layout
    )
    # Not compiled: on a CPU the compiler builds other code than on a GPU.
    mixed = tree_attention.block_attention(query, key, value, layout, 0.2, window, flex_attention)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)
    assert layout.block_mask(window).sparsity() > 0


@given(tree=segments())
def test_a_token_is_predicted_from_the_one_it_follows_in_its_own_branch(tree: list[Segment]) -> None:
    found = predictors(tree, range(tree[-1].stop))
    for segment in tree:
        assert found[segment.start : segment.stop] == [segment.parent_end, *range(segment.start, segment.stop - 1)]
