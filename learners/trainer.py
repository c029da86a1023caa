"""The training process: `python -m learners.trainer JOB.json` trains one LoRA adapter.

It runs apart from everything that serves, so that its memory and its failures are its own. Each update prints one
`Progress` line; the last thing written is the adapter, so a folder without `adapter_model.safetensors` is not an
adapter.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from learners import tree_attention
from learners.architecture import adapted_layers, check_trees, hidden_states, linear_layers, longest_exact
from learners.chat import ChatTokenizer
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example, Objective
from learners.output_head import OutputHead
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.precision import compute_dtype
from learners.probes import write_probes
from learners.settings import TRAINING_REPORT, LoraSettings, Progress, Stage, TrainingJob, TrainingReport
from learners.snapshots import read_trajectories
from learners.stages import objectives_of, updates_of
from streams.errors import ChatTemplateError, ConfigurationError, RatchetError, TrainingError
from streams.runtime.processes import die_with_parent

_WARM_UP_UPDATES = 5

Trees: TypeAlias = Iterator[list[Tree]]


def adapted_model(base: Path, lora: LoraSettings, parent: Path | None, dtype: torch.dtype) -> PeftModel:
    """The base model with a fresh adapter of all its linear layers, or with `parent` to be trained on.

    Adapter weights are float32. Raises `ConfigurationError` when the architecture cannot be trained exactly.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, attn_implementation=tree_attention.NAME, local_files_only=True
        )
    # Libraries raise many kinds of errors for files that are damaged and for architectures without such attention.
    except Exception as error:
        raise ConfigurationError(f"{base} holds no model that can be trained: {error}") from error
    check_trees(model)
    if parent is not None:
        try:
            return PeftModel.from_pretrained(model, str(parent), is_trainable=True)
        # As above: PEFT and safetensors have many kinds of errors for damaged files.
        except Exception as error:
            raise ConfigurationError(f"{parent} holds no adapter of {base}: {error}") from error
    depth = model.config.get_text_config().num_hidden_layers
    layers = None if lora.layers is None else list(range(max(0, depth - lora.layers), depth))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=linear_layers(model),
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )
    try:
        return cast(PeftModel, get_peft_model(model, config))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"PEFT cannot adapt {type(model).__name__}: {error}") from error


def log_probabilities(model: PreTrainedModel, tree: Tree) -> torch.Tensor:
    """The log-probabilities of the counted tokens, in nats: (counted tokens,), float32."""
    hidden = hidden_states(model, tree.ids, tree.positions, tree.layout)
    # Only counted tokens go through the output layer, which is a fifth of a small model.
    logits = OutputHead(model)(hidden[tree.predictors]).float()
    return logits.log_softmax(dim=-1).gather(1, tree.ids[tree.targets][:, None])[:, 0]


class Reference:
    """The policy as it was when a stage began: the weights that are trained, kept, and put back for a moment."""

    def __init__(self, model: PreTrainedModel, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._model = model
        self._parameters = parameters
        self._kept = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def log_probabilities(self, tree: Tree) -> torch.Tensor:
        """As the function of that name has them."""
        now = [parameter.detach().clone() for parameter in self._parameters]
        self._set(self._kept)
        try:
            return log_probabilities(self._model, tree)
        finally:
            self._set(now)

    def _set(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.data.copy_(value)


def batches(examples: Sequence[Example], size: int, generator: torch.Generator) -> Iterator[list[Example]]:
    """Endless batches; every example is seen once before any is seen again."""
    pool: list[int] = []
    while True:
        batch: list[Example] = []
        while len(batch) < size:
            if not pool:
                pool = torch.randperm(len(examples), generator=generator).tolist()
            batch.append(examples[pool.pop()])
        yield batch


class Limits:
    """The tokens and positions that a model can read."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._longest = longest_exact(model.config)

    def check(self, tree: Tree) -> None:
        """Raises `ChatTemplateError` for a tree with a token or a position that the model does not have."""
        if int(tree.ids.max()) >= self._vocabulary:
            raise ChatTemplateError(f"the episode holds token {int(tree.ids.max())} of a model of {self._vocabulary}")
        if self._longest is not None and int(tree.positions.max()) >= self._longest:
            raise ChatTemplateError(f"the episode is longer than the {self._longest} tokens that the model reads")


def packed(
    order: Iterator[list[Example]],
    objective: Objective,
    packer: TreePacker,
    limits: Limits,
    left_out: dict[str, str],
) -> Iterator[list[Tree]]:
    """The trees of each batch.

    What the chat template refuses or the model cannot read is noted in `left_out`: episode id, then the reason.
    """
    for batch in order:
        trees = []
        for example in batch:
            if example.trajectory.episode_id in left_out:
                continue
            try:
                tree = objective.pack(example, packer)
                limits.check(tree)
                trees.append(tree)
            except ChatTemplateError as error:
                left_out[example.trajectory.episode_id] = str(error)
        yield trees


def train(job: TrainingJob) -> None:
    """Run the stages in order and write the adapter. Raises `TrainingError` when there is nothing to learn from."""
    torch.set_num_threads(job.settings.threads)
    torch.manual_seed(job.seed)
    generator = torch.Generator().manual_seed(job.seed)
    dtype = compute_dtype()
    trajectories = read_trajectories(job.snapshot)
    tokenizer = ChatTokenizer(job.base)
    tokenizer.check_replies()
    packer = TreePacker(tokenizer, job.settings.max_length, reasoning=job.settings.reasoning)
    adapted = adapted_model(job.base, job.settings.lora, job.parent, dtype)
    adapted.train()
    model = cast(PreTrainedModel, adapted.get_base_model())
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=job.settings.learning_rate, weight_decay=0.0)
    updates = sum(stage.updates for stage in job.settings.stages)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / _WARM_UP_UPDATES, (updates - done) / updates)
    )
    limits = Limits(model)
    left_out: dict[str, str] = {}
    done = 0
    for stage in job.settings.stages:
        objective = OBJECTIVES[stage.objective]
        usable: dict[str, list[Example]] = {}
        for each, _ in objectives_of(stage):
            usable[each.name] = each.examples(trajectories)
            if not usable[each.name]:
                raise TrainingError(f"the snapshot {job.snapshot} holds nothing that {each.name} could learn from")

        def trees_of(each: Objective, usable: dict[str, list[Example]] = usable, stage: Stage = stage) -> Trees:
            order = batches(usable[each.name], stage.trajectories, generator)
            return packed(order, each, packer, limits, left_out)

        compares = any(each.needs_reference for each, _ in objectives_of(stage))
        reference = Reference(model, parameters) if compares else None
        until = done + stage.updates
        without = 0
        for terms in updates_of(stage, trees_of):
            for examples in usable.values():
                if all(example.trajectory.episode_id in left_out for example in examples):
                    reason = left_out[examples[0].trajectory.episode_id]
                    raise TrainingError(f"none of the {len(examples)} trajectories can be trained on: {reason}")
            if not any(term.objective is objective for term in terms):
                without += 1
                if without > len(usable[objective.name]):
                    raise TrainingError(
                        f"nothing of what {objective.name} learns from fits into {job.settings.max_length} tokens: "
                        "raise learner.max_length"
                    )
                continue
            without = 0
            loss = 0.0
            for term in terms:
                for tree in term.trees:
                    compared = reference if term.objective.needs_reference else None
                    expected = None if compared is None else compared.log_probabilities(tree)
                    part = term.objective.loss(tree, log_probabilities(model, tree), expected) * term.weight / term.size
                    part.backward()
                    loss += part.item()
            torch.nn.utils.clip_grad_norm_(parameters, job.settings.max_gradient_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            tokens = sum(tree.length for term in terms for tree in term.trees)
            progress = Progress(objective=objective.name, update=done, updates=updates, loss=loss, tokens=tokens)
            print(progress.model_dump_json(), flush=True)
            if done == until:
                break
    adapted.eval()
    write_probes(adapted, tokenizer, [one for one in trajectories if one.episode_id not in left_out], job.output)
    report = TrainingReport(adapted=adapted_layers(adapted), left_out=dict(Counter(left_out.values())))
    (job.output / TRAINING_REPORT).write_text(report.model_dump_json())
    adapted.save_pretrained(str(job.output))


def main() -> int:
    die_with_parent(int(sys.argv[2]) if len(sys.argv) > 2 else None)
    job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text())
    try:
        train(job)
    except RatchetError as error:
        print(json.dumps({"error": str(error)}), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
