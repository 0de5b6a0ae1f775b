"""Choices of a configuration that models and networks read."""

from typing import Literal

Tune = Literal["prompts", "decoder", "all"]
"""The trained part: learner and upsampler, with them the model's decoder, or all of the model."""

Upsampling = Literal["none", "blend", "add"]
"""How the learnable upsampler changes the logits: not at all, blended (the paper), or added (published code, VPT)."""

Recompute = Literal["nothing", "elementwise", "blocks"]
"""Activations of a block to rematerialise in the backward pass."""

Masks = Literal["semantic", "instances"]
"""What a mask is: one for all of the phrase's objects, or the union of the instances that the model finds."""
