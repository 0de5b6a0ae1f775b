"""LoRA against PEFT's on Hugging Face's CLIPSeg, with the same random matrices: logits and every gradient."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from test_clipseg import END, PROMPTS, SMALL, difference, our_weights, random_images, their_model

from tunevlseg_jax.learners import LoRA
from tunevlseg_jax.models.parameters import flatten, subtree
from tunevlseg_jax.network import Network, normalize

NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
DEPTHS = {"text": SMALL.text.blocks, "vision": max(SMALL.taps) + 1}


@pytest.mark.parametrize(("scaling", "rank", "alpha"), [("rank", 2, 3.0), ("root of rank", 3, 1.0)])
@pytest.mark.usefixtures("quick_compilation")
def test_logits_and_gradients_agree_with_peft(scaling, rank, alpha):
    learner = LoRA(depth=max(DEPTHS.values()), products=tuple(NAMES), rank=rank, alpha=alpha, scaling=scaling)
    spec = SMALL.spec(lambda phrase: jnp.zeros((0, SMALL.text.width)))
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda shape: random.normal(0, 0.3, shape.shape).astype(np.float32),
        jax.eval_shape(lambda: learner.init(jax.random.key(0), spec)),
    )
    images = random_images(2, (64, 64))
    weights = random.standard_normal((2, 64, 64), np.float32)
    theirs, their_gradients = in_peft(learner, params, images, weights)

    net, frozen = Network(SMALL, learner), our_weights(SMALL)

    def loss_of(trained):
        arguments = jnp.asarray(images), jnp.arange(2), jnp.asarray(PROMPTS, jnp.int32)
        values = {"depth": jnp.int32(learner.depth), "dropout": jnp.float32(0)}
        logits = net.logits(frozen | trained, *arguments, **values)
        return (logits * weights).sum(), logits

    gradients, logits = jax.jit(jax.grad(loss_of, has_aux=True))(flatten(params, "learner"))
    assert difference(np.asarray(logits), theirs) <= 1e-5
    ours = subtree(gradients, "learner")
    assert ours.keys() == their_gradients.keys()
    for path, expected in their_gradients.items():
        assert difference(np.asarray(ours[path]), expected) <= 1e-5, path


def in_peft(
    learner: LoRA, params: dict, images: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """PEFT's logits, and the gradients of their weighted sum by our paths."""
    blocks = [
        rf"clip\.{tower}_model\.encoder\.layers\.({'|'.join(map(str, range(depth)))})"
        for tower, depth in DEPTHS.items()
    ]
    targets = rf"({'|'.join(blocks)})\.({'|'.join(NAMES.values())})"
    config = LoraConfig(
        r=learner.rank,
        lora_alpha=learner.alpha,  # type: ignore[arg-type]
        use_rslora=learner.scaling == "root of rank",
        target_modules=targets,
    )
    model: Any = inject_adapter_in_model(config, copy.deepcopy(their_model(SMALL))).eval()
    places = {
        (tower, name, row, side): model.get_submodule(
            f"clip.{tower}_model.encoder.layers.{row}.{NAMES[name]}.lora_{letter}.default"
        ).weight
        for tower, products in params.items()
        for name in products
        for row in range(DEPTHS[tower])
        for side, letter in (("down", "A"), ("up", "B"))
    }
    with torch.no_grad():
        for (tower, name, row, side), weight in places.items():
            weight.copy_(torch.tensor(params[tower][name][side]["kernel"][row].T))
    logits = with_gradients(model, images)
    (logits * torch.tensor(weights)).sum().backward()
    rows: dict[str, list[np.ndarray]] = {}
    for (tower, name, _, side), weight in places.items():
        rows.setdefault(f"{tower}/{name}/{side}/kernel", []).append(weight.grad.numpy().T)
    return logits.detach().numpy(), {path: np.stack(arrays) for path, arrays in rows.items()}


def with_gradients(model: Any, images: np.ndarray) -> torch.Tensor:
    """(batch, height, width) logits; `forward` of the whole model has no gradient in the towers."""
    ids = torch.tensor(PROMPTS)
    mask = (torch.arange(ids.shape[1])[None] <= (ids == END).int().argmax(1, keepdim=True)).int()
    sentence = model.clip.text_projection(model.clip.text_model(input_ids=ids, attention_mask=mask).pooler_output)
    pixels = torch.tensor(np.asarray(normalize(jnp.asarray(images), SMALL))).permute(0, 3, 1, 2)
    vision = model.clip.vision_model(pixel_values=pixels, output_hidden_states=True, interpolate_pos_encoding=True)
    taps = [vision.hidden_states[tap + 1] for tap in SMALL.taps]
    return model.decoder(taps, sentence).logits.reshape(images.shape[:3])
