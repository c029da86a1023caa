"""The losses of TRL's trainers, computed by their own code, of log-probabilities that are given."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer


class Replies:
    """A model of which TRL reads only the log-probabilities of replies, after a prompt of one token each.

    `log_probabilities` has a tensor (tokens,) for each reply.
    """

    training = False

    def __init__(self, log_probabilities: list[torch.Tensor]) -> None:
        self._padded = torch.nn.utils.rnn.pad_sequence(log_probabilities, batch_first=True)
        lengths = torch.tensor([len(each) for each in log_probabilities])
        self.mask = (torch.arange(self._padded.shape[1] + 1) <= lengths[:, None]).long()
        self.mask[:, 0] = 0
        self.inputs = {"input_ids": torch.zeros_like(self.mask), "attention_mask": torch.ones_like(self.mask)}

    def __call__(self, **_: object) -> SimpleNamespace:
        nothing = torch.zeros_like(self._padded)
        return SimpleNamespace(
            log_probs=self._padded, entropy=nothing, mean_logits=nothing, is_top1=torch.zeros_like(nothing).bool()
        )


def trl_dpo(
    chosen: list[torch.Tensor],
    rejected: list[torch.Tensor],
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float,
    loss_type: str,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The loss of pairs; those of the reference are sums, (pairs,)."""
    model = Replies([*chosen, *rejected])
    trainer = _without_set_up(DPOTrainer, model)
    trainer.beta, trainer.loss_types, trainer.loss_weights = beta, [loss_type], [1.0]
    trainer.label_smoothing, trainer.f_divergence_type = label_smoothing, "reverse_kl"
    trainer.ld_alpha, trainer.use_weighting = None, False
    inputs = model.inputs | {
        "completion_mask": model.mask,
        "ref_chosen_logps": reference_chosen,
        "ref_rejected_logps": reference_rejected,
    }
    loss: torch.Tensor = trainer._compute_loss(model, inputs, False)
    return loss


def trl_kto(
    replies: list[torch.Tensor],
    desirable: list[bool],
    reference: torch.Tensor,
    mismatched: torch.Tensor,
    reference_mismatched: torch.Tensor,
    *,
    beta: float,
    weights: tuple[float, float] = (1.0, 1.0),
) -> torch.Tensor:
    """The loss of replies; mismatched ones and those of the reference are sums."""
    model = Replies(replies)
    trainer = _without_set_up(KTOTrainer, model)
    trainer.beta, trainer.loss_type, trainer.calculate_KL = beta, "kto", True
    trainer.desirable_weight, trainer.undesirable_weight = weights
    trainer._compute_kl_logps = lambda *_: mismatched
    inputs = model.inputs | {
        "completion_mask": model.mask,
        "label": torch.tensor(desirable),
        "ref_logps": reference,
        "ref_KL_logps": reference_mismatched,
    }
    loss: torch.Tensor = trainer._compute_loss(model, inputs, False)
    return loss


def _without_set_up(trainer: Any, model: Replies) -> Any:
    """A trainer that was given no data, with what all losses read."""
    made = trainer.__new__(trainer)
    made.model = model
    made.accelerator = Accelerator(cpu=True)
    made.aux_loss_enabled, made.precompute_ref_logps = False, True
    made._metrics, made._total_train_tokens, made._tp_size = {"eval": defaultdict(list)}, 0, 1
    return made
