"""The engine's check at its start: what it computes in slots is what the model's own code computes."""

import torch
from transformers import PreTrainedModel

from daemon.inference import attention
from daemon.inference.runner import Runner
from daemon.inference.sequence import Sequence
from learners.architecture import TOLERANCE, probe_tokens
from learners.chat import ChatTokenizer
from ratchet_client.errors import ConfigurationError


def check_served(model: PreTrainedModel, chat: ChatTokenizer, dtype: torch.dtype) -> None:
    """Raises `ConfigurationError` unless two prompts side by side are as likely as each read alone by the model."""
    refused = f"{type(model).__name__} cannot be served by the embedded engine"
    ids = probe_tokens(model)
    prompts = (ids, ids.flip(0)[: len(ids) // 2])
    try:
        runner = Runner(model, slots=2, max_length=len(ids), prefill_budget=5)
        sequences = [_scored(prompt, chat) for prompt in prompts]
        for sequence in sequences:
            runner.add(sequence)
        while runner.step():
            pass
        model.set_attn_implementation("eager")
        with torch.inference_mode():
            alone = [model(input_ids=prompt[None], use_cache=False).logits[0, :-1].float() for prompt in prompts]
    except ConfigurationError:
        raise
    # An architecture that passes no slots on, or has other shapes, fails inside Transformers in any way.
    except Exception as error:
        raise ConfigurationError(f"{refused}: {error}; serve it by vLLM instead") from error
    finally:
        model.set_attn_implementation(attention.NAME)
    served = torch.tensor([value for sequence in sequences for value in sequence.prompt_logprobs])
    expected = torch.cat(
        [
            scores.log_softmax(dim=-1).gather(1, prompt[1:, None])[:, 0]
            for scores, prompt in zip(alone, prompts, strict=True)
        ]
    )
    difference = (served - expected).abs().mean().item()
    # `not <=` rather than `>`: a NaN proves nothing.
    if not difference <= TOLERANCE.get(dtype, 0.3):
        raise ConfigurationError(
            f"{refused}: its log-probabilities differ by {difference:.3g} nats from the model's own; "
            "serve it by vLLM instead"
        )


def _scored(prompt: torch.Tensor, chat: ChatTokenizer) -> Sequence:
    return Sequence(
        prompt=prompt.int().numpy(),
        sampling=None,
        tokenizer=chat.tokenizer.backend_tokenizer,
        listen=lambda _: None,
        scored_from=1,
    )
