"""The trainer's record of what the trained model says, against which promotion attests what is served."""

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import torch
from peft import PeftModel

from learners.chat import ChatTokenizer
from learners.trajectories import Trajectory
from streams.errors import ChatTemplateError

PROBES_FILE = "probes.json"
_PROBES = 4


def write_probes(
    adapted: PeftModel, tokenizer: ChatTokenizer, trajectories: Sequence[Trajectory], output: Path
) -> None:
    """Write probes.json into `output`: token ids of prompts, and the log-probability in nats of each but the first.

    The prompts are those of the first actions, as they are served, with the tools that were offered. The model is
    merged in float32 and cast back, as a server does that merges, so that rounding is the same.
    """
    merged = copy.deepcopy(adapted).float().merge_and_unload().to(next(adapted.get_base_model().parameters()).dtype)
    # A prompt is not a tree; it is read as any server reads it.
    merged.set_attn_implementation("sdpa")
    prompts = list(islice(_prompts(tokenizer, trajectories), _PROBES))
    logprobs = []
    for prompt in prompts:
        ids = torch.tensor(prompt)
        with torch.inference_mode():
            scores = merged(input_ids=ids[None]).logits[0, :-1].float().log_softmax(dim=-1)
        logprobs.append([round(value, 6) for value in scores.gather(1, ids[1:, None])[:, 0].tolist()])
    output.mkdir(parents=True, exist_ok=True)
    (output / PROBES_FILE).write_text(json.dumps({"prompts": prompts, "logprobs": logprobs}))


def _prompts(tokenizer: ChatTokenizer, trajectories: Iterable[Trajectory]) -> Iterator[list[int]]:
    for trajectory in trajectories:
        # A short training may not have come to all trajectories that the template refuses.
        with suppress(ChatTemplateError):
            yield tokenizer.prompt(trajectory.opening, trajectory.tools(0))
