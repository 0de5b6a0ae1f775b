"""VLSM-Adapter on Hugging Face's CLIPSeg in float64: an independent computation of its loss and gradients."""

from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import linear, relu

from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.clipseg_config import config_to_huggingface

Tensors = dict[str, torch.Tensor]
PLACES = {
    "self_attn": {"text": "l_attn_adapters", "vision": "v_attn_adapters"},
    "mlp": {"text": "l_out_adapters", "vision": "v_out_adapters"},
}
"""The published names of the adapters after a part of a block, by tower."""


def loss_and_gradients(
    config: CLIPSegConfig, weights: dict[str, np.ndarray], params: dict[str, np.ndarray], inputs: dict[str, np.ndarray]
) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """The mean loss, the logits and the gradient of every tensor of `params`, which have their published names."""
    model: Any = transformers.CLIPSegForImageSegmentation(
        transformers.CLIPSegConfig.from_dict(config_to_huggingface(config))
    )
    model.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.items()})
    model = model.double().eval().requires_grad_(False)
    trained = {name: torch.tensor(tensor, dtype=torch.float64, requires_grad=True) for name, tensor in params.items()}
    for tower in ("text", "vision"):
        blocks = getattr(model.clip, f"{tower}_model").encoder.layers
        for part, names in PLACES.items():
            for number, block in enumerate(blocks):
                if f"{names[tower]}.{number}.fc1.weight" in trained:
                    getattr(block, part).register_forward_hook(partial(_hook, trained, f"{names[tower]}.{number}"))
    logits = _logits(model, trained, inputs)
    target = torch.tensor(inputs["target"][:, 0], dtype=torch.float64)
    loss = _dice_ce(logits, target).mean()
    loss.backward()
    return loss.item(), logits.detach().numpy(), {name: tensor.grad.numpy() for name, tensor in trained.items()}


def _logits(model: Any, trained: Tensors, inputs: dict[str, np.ndarray]) -> torch.Tensor:
    ids, mask = (torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask"))
    text = model.clip.text_model(input_ids=ids, attention_mask=mask)
    sentence = _adapted(trained, "cond_adapter", model.clip.text_projection(text.pooler_output))
    pixels = torch.tensor(inputs["image"], dtype=torch.float64)
    vision = model.clip.vision_model(pixel_values=pixels, output_hidden_states=True, interpolate_pos_encoding=True)
    taps = [vision.hidden_states[tap + 1] for tap in model.config.extract_layers]
    taps = [_adapted(trained, f"vision_extract_adapters.{number}", tap) for number, tap in enumerate(taps)]
    return model.decoder(taps, sentence).logits.reshape(len(ids), *pixels.shape[2:])


def _adapted(trained: Tensors, name: str, h: torch.Tensor) -> torch.Tensor:
    """The published adapter: h + relu(W2 relu(W1 h + b1) + b2); `h` itself if there is none of this name."""
    if f"{name}.fc1.weight" not in trained:
        return h
    inner = relu(linear(h, trained[f"{name}.fc1.weight"], trained[f"{name}.fc1.bias"]))
    return h + relu(linear(inner, trained[f"{name}.fc2.weight"], trained[f"{name}.fc2.bias"]))


def _hook(trained: Tensors, name: str, module: Any, arguments: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # an attention's result has its weights beside it
        return (_adapted(trained, name, output[0]), *output[1:])
    return _adapted(trained, name, output)


def _dice_ce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1.0 * Dice + 0.2 * binary cross-entropy of each sample."""
    p = logits.sigmoid()
    overlap, total = (p * target).sum((1, 2)), (p + target).sum((1, 2))
    dice = 1 - (2 * overlap + 1e-5) / (total + 1e-5)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2))
    return dice + 0.2 * entropy
