"""What is served is what was trained, token by token, for architectures and chat templates of many families."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from daemon.inference.engine import Engine
from daemon.inference.runner import Runner
from daemon.inference.sequence import Sequence, Update
from daemon.inference.settings import InferenceSettings
from learners.adapted_model import adapted_model
from learners.architecture import adapted_layers, hidden_states, linear_layers
from learners.base_model import resolve_base
from learners.chat import ChatTokenizer
from learners.output_head import OutputHead
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights
from learners.precision import compute_dtype
from learners.settings import EMBEDDED, LoraSettings
from learners.trajectories import Trajectory
from ratchet_client.errors import ConfigurationError
from ratchet_client.messages import Message, ToolCall, assistant, call, tool_result, user
from tests.builders.base_models import FAMILIES, write_base
from tests.builders.trained import branch, step, tool
from tests.builders.trees import path, sequences, tree_loss

TEMPLATES = sorted(FAMILIES.keys() - {"glm4moe"})
# Architecture, then the linear layers of one of its blocks that are adapted.
_ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
_GATED = ("down_proj", "gate_proj", *_ATTENTION[:2], "q_proj", "up_proj", "v_proj")
ARCHITECTURES = {
    "llama": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED,
    "granite": _GATED,
    "phi3": ("down_proj", "gate_up_proj", "o_proj", "qkv_proj"),
    "gemma3_text": _GATED,
    "mistral": _GATED,
    "cohere2": _GATED,
    "olmo2": _GATED,
    "smollm3": _GATED,
    "starcoder2": ("c_fc", "c_proj", *_ATTENTION),
}
TRAJECTORY = Trajectory(
    episode_id="a",
    task_id="t",
    opening=(user("You are in the kitchen. You see a fridge, a table and a plate."),),
    steps=(
        step("open fridge", "You open the fridge. [score 0.00]"),
        step("take plate", "You take the dirty plate. [score 0.50]"),
    ),
    branches=(
        branch(0, "look", "You see a kitchen, as before. [score 0.00]"),
        branch(0, "dance", "You dance. [score 0.00]"),
        branch(1, "eat plate", "It is hard. [score 0.00]"),
    ),
)
EVERYTHING = Weights(actions=1.0, observations=1.0, branch_observations=1.0)
TOOLS = (tool("search", "query"), tool("open", "place"))


def calling(*calls: ToolCall) -> Trajectory:
    """An episode with tool calls, their results, two turns of a user and a branch of each kind."""
    results = tuple(tool_result(f"Result {number}.", each.id) for number, each in enumerate(calls))
    again = call("search", '{"query": "\u00e9 \\"x\\""}', "bcdefghi0")
    return Trajectory(
        episode_id="b",
        task_id="t",
        opening=(Message(role="system", content="Help."), user("Is the fridge open?")),
        steps=(
            step(assistant("", *calls), *results, tools=TOOLS),
            step("It is open.", "Then close it."),
            step(assistant("", again), tool_result("Closed.", again.id), user("Thanks.")),
        ),
        branches=(
            branch(0, assistant("", again), tool_result("Nothing found.", again.id)),
            branch(1, "It is closed.", "It is not."),
        ),
    )


_OPEN = call("open", '{"place": "fridge"}', "abcdefgh0")
_SEARCH = call("search", '{"query": "fridge"}', "abcdefgh1")
PARALLEL, SINGLE = calling(_OPEN, _SEARCH), calling(_OPEN)
# Some templates write one call at a time, others none.
TRAJECTORIES = dict.fromkeys(("smollm2", "qwen2_5", "qwen3", "qwen3_no_thinking"), PARALLEL) | dict.fromkeys(
    ("llama3_2", "gptoss"), SINGLE
)
# Each architecture's own template; the other pairs are for the night.
_OWN = {
    "llama": "llama3_2",
    "qwen2": "qwen2_5",
    "qwen3": "qwen3",
    "smollm3": "qwen3_no_thinking",
    "granite": "smollm2",
    "phi3": "phi3",
    "gemma3_text": "gemma3",
    "mistral": "gptoss",
    "cohere2": "cohere2",
    "olmo2": "lfm2",
    "starcoder2": "deepseek_r1_distill",
}
# Plain, with normalised queries and keys, with fused layers, and with a sliding window; the others are for the night.
_SOON = ("llama", "qwen3", "phi3", "gemma3_text")
_CELLS = [
    pytest.param(
        architecture,
        template,
        marks=[] if architecture in _SOON and _OWN[architecture] == template else pytest.mark.nightly,
    )
    for architecture in ARCHITECTURES
    for template in TEMPLATES
]


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    return cache(
        lambda architecture, template: write_base(
            tiny_base, tmp_path_factory.mktemp(f"{architecture}-{template}"), template, architecture
        )
    )


def random_adapter(base: Path) -> PeftModel:
    """The trainer's model with an adapter whose every layer changes something."""
    adapted = adapted_model(base, LoraSettings(rank=2, alpha=8), None, torch.float32)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return adapted.eval()


def trained(model: PreTrainedModel, tree: Tree) -> torch.Tensor:
    """The trainer's log-probability of each counted token."""
    with torch.inference_mode():
        states = hidden_states(model, tree.ids, tree.positions, tree.layout)[tree.predictors]
        scores = OutputHead(model)(states).log_softmax(dim=-1)
    return scores.gather(1, tree.ids[tree.targets][:, None])[:, 0]


def served(engine: Engine, name: str, tree: Tree) -> list[float]:
    """The server's log-probability of each counted token, all sequences in flight together."""
    found: dict[int, float] = {}

    def sequence(ids: list[int], counted: dict[int, int]) -> Sequence:
        def listen(update: Update) -> None:
            found.update({number: update.prompt_logprobs[at - 1] for at, number in counted.items()})

        return Sequence(
            prompt=torch.tensor(ids).int().numpy(),
            sampling=None,
            tokenizer=engine.tokenizer.backend_tokenizer,
            listen=listen,
            scored_from=1,
        )

    runner: Runner = next(model.runner for model in engine.models() if model.name == name)
    for ids, counted in sequences(tree):
        runner.add(sequence(ids, counted))
    while runner.step():
        pass
    return [found[number] for number in range(len(tree.targets))]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "template"), _CELLS)
def test_served_tokens_and_their_log_probabilities_are_those_of_training(
    base: Callable[[str, str], Path], tmp_path: Path, architecture: str, template: str
) -> None:
    folder = base(architecture, template)
    chat = ChatTokenizer(folder)
    trajectory = TRAJECTORIES.get(template, TRAJECTORY)
    tree = TreePacker(chat, 2048).pack(trajectory, EVERYTHING)
    adapted = random_adapter(folder)
    adapted.save_pretrained(str(tmp_path))
    engine = Engine(InferenceSettings(model=folder, port=1, threads=1, dtype="float32"))
    engine.load_adapter("ratchet-1", tmp_path)

    prompts = [path(tree, at) for at in tree.targets.tolist()]
    state = [*trajectory.opening]
    for number, taken in enumerate(trajectory.steps):
        assert chat.prompt(state, trajectory.tools(number)) in prompts
        state += [taken.action, *taken.observation]
    model = cast(PreTrainedModel, adapted.get_base_model())
    with adapted.disable_adapter():
        bare = trained(model, tree)
    ours = trained(model, tree)
    assert served(engine, "base", tree) == pytest.approx(bare.tolist(), abs=2e-4)
    assert served(engine, "ratchet-1", tree) == pytest.approx(ours.tolist(), abs=2e-4)
    assert (ours - bare).abs().mean() > 0.05
    assert tuple(adapted_layers(adapted)) == tuple(sorted(ARCHITECTURES[architecture]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(each, marks=[] if each in _SOON else pytest.mark.nightly) for each in ARCHITECTURES],
)
def test_the_gradients_of_a_tree_are_those_of_one_sequence_for_each_turn(
    base: Callable[[str, str], Path], architecture: str
) -> None:
    folder = base(architecture, "qwen3")
    tree = TreePacker(ChatTokenizer(folder), 2048).pack(SINGLE, EVERYTHING)
    adapted = random_adapter(folder)
    model = cast(PreTrainedModel, adapted.get_base_model())
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    in_tree = torch.autograd.grad(tree_loss(model, tree), parameters)
    model.set_attn_implementation("eager")
    alone = torch.zeros(())
    for ids, counted in sequences(tree):
        places = torch.tensor(list(counted))
        rows = cast(Any, model)(input_ids=torch.tensor([ids]), use_cache=False).logits[0, places - 1]
        alone = alone + cross_entropy(rows, torch.tensor(ids)[places], reduction="sum")
    for one, other in zip(in_tree, torch.autograd.grad(alone, parameters), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("gemma2", "softcap"),
        ("gpt_oss", "s_aux"),
        ("lfm2", "layers of the kind conv"),
        ("bloom", "BloomForCausalLM"),
    ],
)
def test_an_architecture_that_cannot_be_computed_exactly_is_refused_in_one_sentence(
    base: Callable[[str, str], Path], architecture: str, reason: str
) -> None:
    folder = base(architecture, "smollm2")
    with pytest.raises(ConfigurationError, match=reason) as training:
        adapted_model(folder, LoraSettings(), None, torch.float32)
    with pytest.raises(ConfigurationError, match=reason) as serving:
        Engine(InferenceSettings(model=folder, port=1, threads=1, dtype="float32"))
    assert "\n" not in str(training.value)
    assert "\n" not in str(serving.value)


def test_every_linear_layer_but_the_output_layer_is_adapted(base: Callable[[str, str], Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(base("phi3", "phi3"))
    names = linear_layers(model)
    assert "lm_head" not in names
    ours = get_peft_model(model, LoraConfig(r=2, target_modules=names, task_type="CAUSAL_LM"))
    again = AutoModelForCausalLM.from_pretrained(base("phi3", "phi3"))
    theirs = get_peft_model(again, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert adapted_layers(ours) == adapted_layers(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_embedded_base_model_is_exact_as_far_as_its_number_format_rounds(
    embedded_home: Path, dtype: Literal["bfloat16", "float32"]
) -> None:
    folder = resolve_base(EMBEDDED, embedded_home)
    adapted_model(folder, LoraSettings(), None, compute_dtype(dtype))
    assert Engine(InferenceSettings(model=folder, threads=1, dtype=dtype)).max_length == 2048
