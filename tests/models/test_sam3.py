"""Tests of SAM 3 against transformers' Sam3Model of the same random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_cris
import small_sam3
import torch
import transformers
from flax import nnx

from tunevlseg_jax.models.build import fill_module, weight_shapes, with_masks
from tunevlseg_jax.models.catalogue import SAM3Config
from tunevlseg_jax.models.changes import UNCHANGED
from tunevlseg_jax.models.features import Candidates
from tunevlseg_jax.models.sam3_instances import OUTSIDE, SAM3InstancesConfig, union
from tunevlseg_jax.models.sam3_vision import SAM3VisionConfig, VisionBlock
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.sam3_config import config_to_huggingface
from tunevlseg_jax.pretrained.sam3_tensors import sam3_rules
from tunevlseg_jax.prompts import Prompts

quick_compilation = small.quick_compilation
QUICK = ("windows that pad", "one scale")
OUTPUTS = ("logits", "presence", "masks", "boxes", "scores")
VARIANTS = {
    "windows that pad": small_sam3.sizes(),
    "windows that fit, positions cut": small_sam3.sizes(image_size=14, window=2),
    "one scale": dataclasses.replace(
        small_sam3.sizes(scales=(1.0,), global_blocks=(0, 2)),
        instances=SAM3InstancesConfig(layers=1, heads=2, hidden=12, queries=3),
    ),
    "two scales, a larger image": dataclasses.replace(
        small_sam3.sizes(image_size=70, scales=(2.0, 1.0), window=3),
        instances=SAM3InstancesConfig(layers=3, heads=8, hidden=20, queries=9),
    ),
}


def their_model(config: SAM3Config, weights: dict[str, np.ndarray]) -> transformers.Sam3Model:
    """In float64: then a difference is the rounding of ours."""
    model = transformers.Sam3Model(transformers.Sam3Config.from_dict(config_to_huggingface(config))).eval()
    tensors = rules.to_theirs(sam3_rules(config), weights)
    model.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
    return model.double()


def inputs(config: SAM3Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images, two phrases of unequal length, and which of their tokens are valid."""
    end = config.text.end_token
    tokens = np.array([[end - 1, 5, 6, 7, end, end], [end - 1, 3, end, end, end, end]], np.int32)
    valid = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], bool)
    side = config.image_size
    return np.random.default_rng(0).standard_normal((2, side, side, 3), np.float32), tokens, valid


def their_stages(model: transformers.Sam3Model, pixels: torch.Tensor, tokens: np.ndarray, valid: np.ndarray) -> dict:
    """Their outputs by stage, channels last."""
    stages = {}

    def keep(name, module, of):
        module.register_forward_hook(lambda _, __, output: stages.__setitem__(name, of(output)))

    keep("backbone", model.vision_encoder.backbone, lambda output: output.last_hidden_state)
    keep("pyramid", model.vision_encoder.neck, lambda output: [grid.permute(0, 2, 3, 1) for grid in output[0]])
    keep("words", model.text_projection, lambda output: output)
    keep("encoder", model.detr_encoder, lambda output: output.last_hidden_state)
    keep("pixels", model.mask_decoder.pixel_decoder, lambda output: output.permute(0, 2, 3, 1))
    mask = torch.tensor(valid).long()
    output = model(pixel_values=pixels, input_ids=torch.tensor(tokens).long(), attention_mask=mask)
    return stages | {
        "logits": torch.nn.functional.interpolate(output.semantic_seg, pixels.shape[2:], mode="bilinear")[:, 0],
        "presence": output.presence_logits[:, 0],
        "masks": output.pred_masks,
        "boxes": output.pred_boxes,
        "scores": output.pred_logits,
    }


def our_stages(config: SAM3Config, weights, images, tokens) -> dict:
    model = fill_module(config.build, weights)
    features, text = model.vision(images, Prompts()), model.text(tokens, Prompts())
    encoded = model.decoder.encode(features.states[-1], text)
    decoded = model.decode(features, text)
    candidates = decoded.candidates
    assert candidates is not None
    semantic, _ = model.decoder(features.states, text, features.size)
    return {
        "pooled": features.pooled,
        "pyramid": features.states,
        "words": jnp.where(text.valid[..., None], encoded.words, 0.0),
        "valid": text.valid,
        "encoder": encoded.cells,
        "pixels": decoded.features,
        "logits": semantic.logits,
        "presence": decoded.presence,
        "masks": candidates.masks,
        "boxes": candidates.boxes,
        "scores": candidates.logits,
    }


def apart(ours, theirs: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape and np.ptp(expected) > 1e-6
    return np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in VARIANTS]
)
def test_every_stage_agrees_with_transformers(name):
    config = with_masks(VARIANTS[name], "instances")
    weights = small_cris.random_weights(config)
    images, tokens, valid = inputs(config)
    with torch.no_grad():
        pixels = torch.tensor(images.transpose(0, 3, 1, 2)).double()
        theirs = their_stages(their_model(config, weights), pixels, tokens, valid)
    ours = jax.jit(our_stages, static_argnums=0)(config, weights, images, tokens)
    np.testing.assert_array_equal(ours["valid"], valid)
    differences = {
        "pooled": apart(ours["pooled"], theirs["backbone"].mean(dim=1)),
        "words": apart(ours["words"], theirs["words"] * torch.tensor(valid)[..., None]),
        **{stage: apart(ours[stage], theirs[stage]) for stage in ("encoder", "pixels", *OUTPUTS)},
        **{f"grid {i}": apart(grid, theirs["pyramid"][i]) for i, grid in enumerate(ours["pyramid"])},
    }
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.slow
def test_gradients_agree_with_transformers():
    """Of a random sum of all outputs, each at the same scale."""
    config = with_masks(small_sam3.sizes(image_size=28, window=3), "instances")
    weights = small_cris.random_weights(config)
    images, tokens, valid = inputs(config)
    model = their_model(config, weights)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2)).double().requires_grad_()
    theirs, rng = their_stages(model, pixels, tokens, valid), np.random.default_rng(1)
    weighting = {
        stage: rng.standard_normal(theirs[stage].shape, np.float32) / float(theirs[stage].detach().norm())
        for stage in OUTPUTS
    }
    sum((theirs[stage] * torch.tensor(weighting[stage])).sum() for stage in OUTPUTS).backward()

    @jax.jit
    @jax.grad
    def gradients(inputs):
        stages = our_stages(config, weights | {config.token_embedding: inputs["tokens"]}, inputs["images"], tokens)
        return sum((stages[stage] * weighting[stage]).sum() for stage in OUTPUTS)

    ours = gradients({"tokens": weights[config.token_embedding], "images": images})
    embedding = model.text_encoder.get_input_embeddings().weight
    assert pixels.grad is not None and embedding.grad is not None
    differences = {
        "images": apart(ours["images"], pixels.grad.permute(0, 2, 3, 1)),
        "tokens": apart(ours["tokens"], embedding.grad),
    }
    print(differences)
    assert max(differences.values()) < 1e-4, differences


@pytest.mark.slow
def test_the_full_size_has_the_published_names_and_shapes():
    with torch.device("meta"):
        published = transformers.Sam3Model(transformers.Sam3Config()).state_dict()
    config = SAM3Config(instances=SAM3InstancesConfig())
    shapes = weight_shapes(config)
    theirs = {}
    for rule in sam3_rules(config):
        whole = np.broadcast_to(np.float32(0), shapes[rule.ours])
        theirs |= {name: part.shape for name, part in zip(rule.theirs, rule.move.to_theirs(whole), strict=True)}
    assert {rule.ours for rule in sam3_rules(config)} == shapes.keys()
    assert theirs == {name: tuple(tensor.shape) for name, tensor in published.items()}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 840_376_374


def test_each_window_has_a_copy_of_the_prompts_and_their_mean_goes_on():
    side, prompts, width = 2, 3, 8
    sizes = SAM3VisionConfig(width=width, blocks=2, heads=2, hidden=12, window=side, global_blocks=(1,))
    windowed, whole = (VisionBlock(sizes, number, nnx.Rngs(0)) for number in (0, 1))
    x = jax.random.normal(jax.random.key(1), (1, 2 * side * side + prompts, width))
    grid = (side, 2 * side)
    after = windowed._attend_in_windows(x, grid, change=UNCHANGED)
    cells = x[:, :-prompts].reshape(1, *grid, width)
    halves = [cells[:, :, :side], cells[:, :, side:]]
    tokens = [jnp.concatenate([half.reshape(1, -1, width), x[:, -prompts:]], axis=1) for half in halves]
    apart = [whole._attend_everywhere(half, (side, side), change=UNCHANGED) for half in tokens]
    joined = jnp.concatenate([half[:, :-prompts].reshape(1, side, side, width) for half in apart], axis=2)
    np.testing.assert_allclose(after[:, :-prompts].reshape(1, *grid, width), joined, atol=1e-6)
    np.testing.assert_allclose(after[:, -prompts:], (apart[0] + apart[1])[:, -prompts:] / 2, atol=1e-6)


def test_prompts_are_not_rotated():
    sizes = SAM3VisionConfig(width=8, blocks=1, heads=2, hidden=12, window=2, global_blocks=(0,))
    block = VisionBlock(sizes, 0, nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 4 + 2, 8))
    swapped = x[:, jnp.array([0, 1, 2, 3, 5, 4])]
    before, after = (block(tokens, (2, 2)) for tokens in (x, swapped))
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-6)
    np.testing.assert_allclose(before[:, 4:], after[:, :3:-1], atol=1e-6)
    moved = block(x[:, jnp.array([1, 0, 2, 3, 4, 5])], (2, 2))
    assert np.abs(moved[:, 2] - before[:, 2]).max() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": (4.0, 1.0)}, "the scales must be .*4.0, 1.0"),
        ({"global_blocks": (3,)}, r"global_blocks must be among the 3 blocks, got \(3,\)"),
        ({"heads": 5}, "heads, 5, must divide its width, 32"),
        ({"patch": 8}, "the patch, 8, must divide the stored positions' image, 21"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        small_sam3.sizes(**change).build(nnx.Rngs(0))


def test_an_image_that_the_patch_does_not_divide_is_refused():
    config = small_sam3.sizes()
    model = nnx.eval_shape(lambda: config.build(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="an image of 42x40 pixels is not a multiple of the patch, 7"):
        model.vision(jnp.zeros((1, 42, 40, 3)), Prompts())


def test_a_frozen_model_leaves_out_the_parts_that_its_masks_do_not_need():
    config, weights = small_sam3.model().config, small_sam3.model().weights
    frozen, used = config.for_frozen_encoder(weights)
    parts = {path.split("/")[0] for path in used}
    assert used.keys() == weight_shapes(frozen).keys() and parts == {"text_tower", "vision_tower", "decoder"}
    frozen, used = with_masks(config, "instances").for_frozen_encoder(weights)
    assert used.keys() == weight_shapes(frozen).keys()
    assert {path.split("/")[0] for path in used} == {*parts, "instances"}
    assert {path.split("/")[0] for path in weights} == {*parts, "instances", "unused"}


def test_the_union_takes_the_candidates_with_a_high_score():
    masks = jnp.array([[[[1.0, -30.0]], [[-2.0, 3.0]], [[9.0, 9.0]]], [[[1.0, 1.0]]] * 3])
    boxes, logits = jnp.zeros((2, 3, 4)), jnp.zeros((2, 3))
    scores = jnp.array([[0.6, 0.7, 0.5], [0.4, 0.2, 0.1]])
    found = union(Candidates(masks, boxes, logits, scores))
    np.testing.assert_array_equal(found, [[[1.0, 3.0]], [[OUTSIDE, OUTSIDE]]])
    alone = union(Candidates(masks[:1, :1], boxes, logits, scores[:1, :1]))
    np.testing.assert_array_equal(alone, [[[1.0, OUTSIDE]]])


def test_only_a_sam3_with_its_decoder_finds_instances():
    config = small_sam3.sizes()
    without = dataclasses.replace(config, instances=None)
    assert with_masks(without, "semantic") == without
    for other in (without, small_cris.sizes()):
        with pytest.raises(
            ValueError, match=r"masks must be semantic for this (SAM3|CRIS), got instances; only a SAM 3"
        ):
            with_masks(other, "instances")
