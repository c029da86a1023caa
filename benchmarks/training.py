"""Training on packed trees against the bare model, and against TRL's SFTTrainer with PEFT on the same targets.

    python -m benchmarks.training [--model FOLDER] [--branches 8] [--prompt 200] [--target 40] [--updates 6] [--json]

Each state has a prompt and several branches, whose observations are the targets, as the objective `world_model` has
them; it is the one with the most branches to mask. Each side trains in a process of its own, on the same threads and
data type: the trainer's own loop, one tree an update (packing and the optimizer's step counted); the model without
adapters, plainly causal, forward and backward on the tokens of the same tree; and SFTTrainer, the same LoRA, one
sequence a target, all of a state in one batch. The median of the updates after the first is taken. Seconds are the
processor's, of all threads, so that what else runs on a shared machine counts little.
"""

import argparse
import importlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from accelerate import Accelerator
from peft import LoraConfig
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback

from daemon.config import Settings
from learners.adapted_model import adapted_model
from learners.architecture import linear_layers
from learners.base_model import resolve_base
from learners.batches import Limits, Packer
from learners.chat import ChatTokenizer
from learners.lower_layers import LowerLayers
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.optimisation import Learning, Optimisation
from learners.packing import TreePacker
from learners.precision import compute_dtype
from learners.settings import EMBEDDED, LearnerSettings, LoraSettings, Stage, TrainingJob
from learners.trajectories import Branch, Trajectory
from ratchet_client.messages import assistant, user
from streams.branch_events import RecordedStep
from streams.runtime.processes import peak_memory

SIDES = ("ours", "bare", "bare_frozen", "trl")
_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Workload:
    """The shape of the data, in tokens, and how often and with how many threads it is learned."""

    model: Path
    branches: int
    prompt: int
    target: int
    updates: int
    threads: int
    layers: int | None


@dataclass(frozen=True, slots=True)
class Side:
    """Processor seconds of an update, the tokens that the model read in it, and the most memory of the process."""

    seconds: float
    tokens: int
    peak_mib: int


@dataclass(frozen=True, slots=True)
class Result:
    """`ratio` is our tokens/s over the bare model's; with `_frozen` its weights get no gradients, as under LoRA.

    `ratio_trl` is our targets/s over SFTTrainer's. `load` is the machine's over a minute, before and after.
    """

    dtype: str
    threads: int
    branches: int
    tree_tokens: int
    trl_tokens: int
    tokens_per_s: float
    bare_tokens_per_s: float
    examples_per_s: float
    trl_examples_per_s: float
    peak_mib: dict[str, int]
    load: tuple[float, float]
    ratio_frozen: float
    ratio_trl: float
    ratio: float


def states(work: Workload, tokenizer: ChatTokenizer) -> list[Trajectory]:
    """One trajectory an update, of one state, whose prompt and targets are about as long as asked for."""
    return [_state(work, tokenizer, random.Random(number), number) for number in range(work.updates)]


def _state(work: Workload, tokenizer: ChatTokenizer, draw: random.Random, number: int) -> Trajectory:
    words = ("table", "key", "towel", "drawer", "fridge", "shelf", "door", "lamp")
    opening = user(" ".join(draw.choices(words, k=work.prompt)))
    while len(tokenizer.prompt((opening,))) > work.prompt:
        opening = user(opening.text.rpartition(" ")[0])
    branches = tuple(
        Branch(
            0,
            assistant(f"take {draw.choice(words)} {branch}"),
            (user(" ".join(draw.choices(words, k=work.target))),),
            "policy",
            "sandbox_exact",
        )
        for branch in range(work.branches)
    )
    # Nothing came back after the trusted action, so that the targets are the branches' alone.
    steps = (RecordedStep(action=assistant("take key"), observation=(), tools=None),)
    return Trajectory(f"episode-{number}", f"task-{number}", (opening,), steps, branches)


def sequences(trajectory: Trajectory, tokenizer: ChatTokenizer) -> list[dict[str, list[int]]]:
    """The targets of a state, each with all that comes before it, as SFTTrainer takes them."""
    rows = []
    for branch in trajectory.branches:
        turn = tokenizer.observation((*trajectory.opening, branch.action, *branch.observation), 1)
        begin, end = turn.written
        rows.append({"input_ids": list(turn.ids[:end]), "completion_mask": [0] * begin + [1] * (end - begin)})
    return rows


def ours(work: Workload) -> Side:
    tokenizer = ChatTokenizer(work.model)
    stages = (Stage(objective="world_model", updates=work.updates, trajectories=1),)
    lora = LoraSettings(layers=work.layers)
    settings = LearnerSettings(stages=stages, threads=work.threads, max_length=_LENGTH, lora=lora)
    adapted = adapted_model(work.model, lora, None, compute_dtype()).train()
    model = cast(PreTrainedModel, adapted.get_base_model())
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    learning = Learning(model, parameters, LowerLayers(model, 2**29), Accelerator(cpu=True))
    packer = Packer(TreePacker(tokenizer, _LENGTH), Limits(model), {})
    ends, tokens = [], []
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(base=work.model, snapshot=Path(folder), output=Path(folder), settings=settings)

        def tell(progress: Any) -> None:
            ends.append(time.process_time())
            tokens.append(progress.tokens)

        Optimisation(job, learning, packer, tell).run(states(work, tokenizer))
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    return Side(median(seconds), round(median(tokens)), peak_memory() // 2**20)


def bare(work: Workload, *, frozen: bool) -> Side:
    tokenizer = ChatTokenizer(work.model)
    packer = TreePacker(tokenizer, _LENGTH)
    model: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=compute_dtype(), local_files_only=True).train()
    if frozen:
        model.requires_grad_(False)
    seconds, tokens = [], []
    for trajectory in states(work, tokenizer):
        ids = OBJECTIVES["world_model"].pack(Example(trajectory), packer).ids[None]
        began = time.process_time()
        given = model.get_input_embeddings()(ids).detach().requires_grad_(True) if frozen else None
        loss = model(**({"inputs_embeds": given} if frozen else {"input_ids": ids}), labels=ids, use_cache=False).loss
        loss.backward()
        seconds.append(time.process_time() - began)
        model.zero_grad()
        tokens.append(ids.numel())
    return Side(median(seconds[1:]), round(median(tokens)), peak_memory() // 2**20)


def trl(work: Workload) -> Side:
    from datasets import Dataset

    # Its classes are exported lazily, which type checkers do not see.
    library: Any = importlib.import_module("trl")

    tokenizer = ChatTokenizer(work.model)
    rows = [row for trajectory in states(work, tokenizer) for row in sequences(trajectory, tokenizer)]
    model: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=compute_dtype(), local_files_only=True)
    shape = LoraSettings(layers=work.layers)
    depth = model.config.num_hidden_layers
    lora = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=linear_layers(model),
        layers_to_transform=None if work.layers is None else list(range(depth - work.layers, depth)),
        task_type="CAUSAL_LM",
    )
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        config = library.SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=work.branches,
            max_steps=work.updates,
            max_length=None,
            completion_only_loss=True,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        words = AutoTokenizer.from_pretrained(work.model, local_files_only=True)
        library.SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            peft_config=lora,
            processing_class=words,
            callbacks=[Clock()],
        ).train()
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    tokens = sum(len(row["input_ids"]) for row in rows) // work.updates
    return Side(median(seconds), tokens, peak_memory() // 2**20)


def measure(arguments: list[str], work: Workload) -> Result:
    """Each side in a process of its own, so that its memory is its own."""
    before = _load()
    found = {side: _in_process(side, arguments) for side in SIDES}
    mine, plain, frozen, theirs = (found[side] for side in SIDES)
    speed, bare_speed = mine.tokens / mine.seconds, plain.tokens / plain.seconds
    return Result(
        dtype=str(compute_dtype()).removeprefix("torch."),
        threads=work.threads,
        branches=work.branches,
        tree_tokens=mine.tokens,
        trl_tokens=theirs.tokens,
        tokens_per_s=round(speed, 1),
        bare_tokens_per_s=round(bare_speed, 1),
        examples_per_s=round(work.branches / mine.seconds, 2),
        trl_examples_per_s=round(work.branches / theirs.seconds, 2),
        peak_mib={side: one.peak_mib for side, one in found.items()},
        load=(before, _load()),
        ratio_frozen=round(speed * frozen.seconds / frozen.tokens, 2),
        ratio_trl=round(theirs.seconds / mine.seconds, 2),
        ratio=round(speed / bare_speed, 2),
    )


def _in_process(side: str, arguments: list[str]) -> Side:
    command = [sys.executable, "-m", "benchmarks.training", *arguments, "--side", side]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return Side(**json.loads(lines[-1]))


def _load() -> float:
    return float(Path("/proc/loadavg").read_text().split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Hugging Face causal model; else the embedded one")
    parser.add_argument("--branches", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--target", type=int, default=40)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, help="adapt so many of the upper layers only")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.model = options.model or resolve_base(EMBEDDED, Settings.read().home)
    work = Workload(
        **{name: getattr(options, name) for name in Workload.__slots__},
    )
    if options.side:
        torch.set_num_threads(work.threads)
        run: dict[str, Callable[[], Side]] = {
            "ours": lambda: ours(work),
            "bare": lambda: bare(work, frozen=False),
            "bare_frozen": lambda: bare(work, frozen=True),
            "trl": lambda: trl(work),
        }
        print(json.dumps(asdict(run[options.side]())))
        return
    result = measure([*sys.argv[1:], "--model", str(work.model)], work)
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        Console().print(result)


if __name__ == "__main__":
    main()
