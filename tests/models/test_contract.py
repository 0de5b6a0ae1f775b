"""Tests of the contract of a model: every class that a folder may hold has its members, and its stages fit together."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_cris
import small_sam3

from tunevlseg_jax.models.build import fill_module, random_model, weight_shapes, with_prompt_offset
from tunevlseg_jax.models.catalogue import AnyModelConfig, CRISConfig, Model, ModelConfig
from tunevlseg_jax.models.settings import Recompute
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.prompts import ModelSpec, Prompts


def configs() -> list[ModelConfig]:
    return [load_pretrained(str(small.model_folder()), weights=False).config, small_cris.sizes(), small_sam3.sizes()]


def members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def test_every_class_is_covered():
    assert {type(config) for config in configs()} == set(typing.get_args(AnyModelConfig))


@pytest.mark.parametrize("config", configs(), ids=lambda config: type(config).__name__)
def test_a_forward_pass_through_the_contract(config: ModelConfig):
    assert not {name for name in members(ModelConfig) if not hasattr(config, name)}
    assert hash(config) == hash(config)
    assert config.image_size % config.side_multiple == 0 and len(config.mean) == len(config.std) == 3
    weights = jax.eval_shape(lambda: random_model(config, jax.random.key(0)))  # shapes are all that it is about
    shapes = weight_shapes(config)
    assert shapes[config.token_embedding] == (config.text.vocabulary, config.text.width)
    assert any(path.startswith("decoder/") for path in shapes)
    spec = config.spec(lambda phrase: jnp.zeros((len(phrase.split()), config.text.width)))
    assert isinstance(spec, ModelSpec) and spec.embed_phrase("a dog").shape == (2, spec.text_width)
    assert (spec.text_width, spec.text_blocks) == (config.text.width, config.text.blocks)

    def forward(weights, images, tokens):
        model: Model = fill_module(config.build, weights)
        assert not {name for name in members(Model) if not hasattr(model, name)}
        recompute: Recompute = "nothing"
        image_features = model.vision(images, Prompts(), recompute)
        text_features = model.text(tokens, Prompts())
        return image_features, text_features, model.decode(image_features, text_features)

    side = config.image_size
    inputs = (jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32), jax.ShapeDtypeStruct((2, 3), jnp.int32))
    image_features, text_features, decoded = jax.eval_shape(forward, weights, *inputs)
    assert len(image_features) == 2 and image_features.pooled.shape == (2, spec.image_width)
    assert image_features.size == (side, side)
    assert text_features.states.shape == (2, 3, config.text.width) and text_features.valid.shape == (2, 3)
    assert decoded.logits.shape == (2, side, side)
    assert decoded.features.shape[0] == 2 and decoded.features.shape[-1] == config.feature_width
    assert config.upsampler_width is None or config.upsampler_width > 0

    frozen, same = config.for_frozen_encoder({path: np.ones(shape, np.float32) for path, shape in shapes.items()})
    assert {path: tuple(array.shape) for path, array in same.items()} == weight_shapes(frozen)


def test_only_a_cris_takes_text_prompts_late():
    clipseg, cris, sam3 = configs()
    late = with_prompt_offset(cris, 1)
    assert isinstance(late, CRISConfig) and late.prompt_offset == 1 and with_prompt_offset(late, 0) == cris
    assert with_prompt_offset(clipseg, 0) == clipseg
    for config, name in ((clipseg, "CLIPSeg"), (sam3, "SAM3")):
        with pytest.raises(ValueError, match=rf"model\.prompt_offset .*0 .*{name}, .*1"):
            with_prompt_offset(config, 1)
