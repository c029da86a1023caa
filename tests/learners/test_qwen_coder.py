"""Real weights of a second family, which calls tools: what it says is read, served as trained, and learned from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from examples.qwen_coder import write_qwen_coder
from learners.adapted_model import adapted_model
from learners.chat import ChatTokenizer
from learners.packing import TreePacker, Weights
from learners.settings import LoraSettings
from learners.trajectories import Trajectory
from ratchet_client.errors import ConfigurationError
from ratchet_client.messages import Message, ToolDefinition, assistant, call, tool_result, user
from tests.builders.trained import step
from tests.builders.trees import tree_loss

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
WEATHER: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city's name."}},
            "required": ["city"],
        },
    },
}
ASKED = [user("What's the weather in Oslo and in Rome?")]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("qwen-coder")
    try:
        write_qwen_coder(folder, tmp_path_factory.mktemp("wheels"))
    except ConfigurationError as error:
        pytest.skip(f"no pretrained model that calls tools: {error}")
    yield folder
    for path in folder.iterdir():  # more than a gigabyte, which pytest would keep
        path.unlink()


def test_its_own_answer_to_a_request_is_read_as_calls_and_trained_as_it_was_served(qwen: Path) -> None:
    chat = ChatTokenizer(qwen)
    prompt = chat.prompt(ASKED, (WEATHER,))
    served = chat.tokenizer.apply_chat_template(
        [message.model_dump(exclude_none=True) for message in ASKED],
        tools=[WEATHER],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert prompt == served
    model: Any = AutoModelForCausalLM.from_pretrained(qwen, dtype=torch.bfloat16)
    drawn = model.generate(torch.tensor([prompt]), max_new_tokens=80, do_sample=False)[0, len(prompt) :].tolist()
    assert drawn[-1] in chat.stop_tokens
    message = chat.reply_format.parse(str(chat.tokenizer.decode(drawn[:-1])))
    said = [(each.function.name, each.function.arguments) for each in message.calls if each.function]
    assert said == [("get_weather", '{"city": "Oslo"}'), ("get_weather", '{"city": "Rome"}')]
    assert message.content is None
    turn = chat.reply(ASKED, message, (WEATHER,))
    assert list(turn.ids[slice(*turn.written)]) == drawn


def test_training_on_a_conversation_with_tools_lowers_its_loss(qwen: Path) -> None:
    calls = [
        call("get_weather", f'{{"city": "{city}"}}', f"call_{number}") for number, city in enumerate(("Oslo", "Rome"))
    ]
    steps = (
        step(
            assistant("I look it up.", *calls),
            tool_result("4 degrees, rain", "call_0"),
            tool_result("19 degrees, sun", "call_1"),
            tools=(WEATHER,),
        ),
        step("Rome is warmer, by 15 degrees.", "Thanks!"),
    )
    opening = (Message(role="system", content="Compare the cities."), *ASKED)
    packer = TreePacker(ChatTokenizer(qwen), 2048)
    tree = packer.pack(Trajectory("a", "t", opening, steps), Weights(actions=1.0, observations=1.0))
    torch.manual_seed(0)
    adapted = adapted_model(qwen, LoraSettings(rank=8, alpha=16), None, torch.float32)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    losses = []
    for _ in range(5):
        loss = tree_loss(cast(PreTrainedModel, adapted.get_base_model()), tree) / tree.weights.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
