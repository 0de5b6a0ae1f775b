"""SAM 3 (Carion et al. 2025): from an image and a phrase to the mask of the concept, and if asked to its instances."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.clip import TOKEN_EMBEDDING, TextConfig, TextTower
from tunevlseg_jax.models.features import Decoded, ImageFeatures, TextFeatures
from tunevlseg_jax.models.resize import resize_grid
from tunevlseg_jax.models.sam3_decoder import GROUPS, Decoder, are_consecutive
from tunevlseg_jax.models.sam3_instances import Instances, SAM3InstancesConfig, union
from tunevlseg_jax.models.sam3_unused import SAM3UnusedConfig, Unused
from tunevlseg_jax.models.sam3_vision import SAM3VisionConfig, VisionTower
from tunevlseg_jax.models.settings import Masks, Recompute
from tunevlseg_jax.models.vectors import vectors
from tunevlseg_jax.prompts import ModelSpec, Prompts
from tunevlseg_jax.runtime import schema

BLOCKS = ("text_tower/blocks/", "vision_tower/blocks/")
"""Starts of the paths of biases and scales that aren't among `ModelSpec.vectors`, since they have their own place."""
UNUSED, INSTANCES = "unused/", "instances/"
"""Starts of the paths of the weights that nothing reads, and of those that only the masks of instances need."""
TEXT = TextConfig(width=1024, blocks=24, heads=16, hidden=4096, context_length=32, end_token=49407, activation="gelu")
"""Sizes of facebook/sam3's text tower."""


@dataclass(frozen=True)
class SAM3Config:
    """Sizes of a SAM 3, a `ModelConfig`; the defaults are facebook/sam3's, without its instances.

    Attributes:
      unused: sizes of the parts that nothing needs; None to leave them out.
      sentence_width: of the text tower's last projection, which no part reads.
      width: of the pyramid, the encoder and the pixel decoder.
      encoder_layers: of the encoder in which the image attends to the words.
      encoder_heads: of its attentions.
      encoder_hidden: width of its MLPs' hidden layers.
      mask_heads: of the attention to the words before the pixel decoder.
      image_size: side in pixels of the images that the model is used with.
      mean: of a colour channel, in 0..1, subtracted before the vision tower.
      std: likewise, divided by.
      instances: sizes of the part that finds instances; None to leave it out.
      masks: what `decode` computes; "instances" needs the sizes of that part.
    """

    text: TextConfig = TEXT
    vision: SAM3VisionConfig = field(default_factory=SAM3VisionConfig)
    unused: SAM3UnusedConfig | None = field(default_factory=SAM3UnusedConfig)
    sentence_width: int = 512
    width: int = 256
    encoder_layers: int = 6
    encoder_heads: int = 8
    encoder_hidden: int = 2048
    mask_heads: int = 8
    image_size: int = 1008
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    instances: SAM3InstancesConfig | None = schema.added(None)
    masks: Masks = schema.added("semantic")

    @property
    def side_multiple(self) -> int:
        return self.vision.patch

    @property
    def feature_width(self) -> int:
        return self.width

    @property
    def upsampler_width(self) -> int | None:
        return 64

    @property
    def token_embedding(self) -> str:
        return TOKEN_EMBEDDING

    def build(self, rngs: nnx.Rngs) -> "SAM3":
        return SAM3(self, rngs)

    def spec(self, embed_phrase: Callable[[str], Array]) -> ModelSpec:
        return ModelSpec(
            text_width=self.text.width,
            text_blocks=self.text.blocks,
            text_hidden=self.text.hidden,
            image_width=self.vision.width,
            sentence_width=None,
            vision_width=self.vision.width,
            vision_blocks=self.vision.blocks,
            vision_hidden=self.vision.hidden,
            effective_vision_prompts=self.vision.blocks,
            effective_vision_blocks=self.vision.blocks,
            taps=1,
            text_taps=0,
            feature_width=self.feature_width,
            embed_phrase=embed_phrase,
            vectors=lambda stage: vectors(self, stage, BLOCKS),
        )

    def for_frozen_encoder(
        self, weights: Mapping[str, np.ndarray | Array]
    ) -> tuple["SAM3Config", Mapping[str, np.ndarray | Array]]:
        """The same model without the parts that its masks don't need."""
        instances = self.instances if self.masks == "instances" else None
        left_out = (UNUSED,) if instances else (UNUSED, INSTANCES)
        used = {path: weight for path, weight in weights.items() if not path.startswith(left_out)}
        return dataclasses.replace(self, unused=None, instances=instances), used


class SAM3(nnx.Module):
    """The model in three stages: `vision`, `text`, `decode`."""

    def __init__(self, config: SAM3Config, rngs: nnx.Rngs):
        check_sizes(config)
        self.config = config
        self.text_tower = TextTower(config.text, config.sentence_width, rngs)
        self.vision_tower = VisionTower(config.vision, config.width, rngs)
        self.decoder = Decoder(
            config.width,
            config.text.width,
            layers=config.encoder_layers,
            heads=config.encoder_heads,
            hidden=config.encoder_hidden,
            mask_heads=config.mask_heads,
            grids=len(config.vision.scales),
            rngs=rngs,
        )
        width, unused, instances = config.width, config.unused, config.instances
        self.unused = nnx.data(None if unused is None else Unused(unused, config.vision.width, width, rngs))
        self.instances = nnx.data(None if instances is None else Instances(instances, width, rngs))

    def text(self, tokens: Array, prompts: Prompts) -> TextFeatures:
        """See `TextTower`."""
        return self.text_tower(tokens, prompts)

    def vision(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """The grids of the pyramid, finest first; the image vector is the mean of the patches. See `VisionTower`."""
        return self.expand(self.encode(images, prompts, recompute))

    def encode(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """The cells of the last block, a fifth of the size of the pyramid that `expand` makes of them."""
        cells, pooled = self.vision_tower(images, prompts, recompute)
        return ImageFeatures((cells,), pooled, (images.shape[1], images.shape[2]))

    def expand(self, image_features: ImageFeatures) -> ImageFeatures:
        """The grids of the pyramid in place of the cells."""
        (cells,) = image_features.states
        return dataclasses.replace(image_features, states=self.vision_tower.grids(cells))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Decoded:
        """See `Decoder`, and `Instances` for the masks of instances, whose logits are those of their `union`."""
        decoded, encoded = self.decoder(image_features.states, text_features, image_features.size)
        if self.config.masks == "semantic":
            return decoded
        assert self.instances is not None  # as `check_sizes` makes sure
        presence, candidates = self.instances(encoded, decoded.features)
        logits = resize_grid(union(candidates)[..., None], image_features.size, "bilinear")[..., 0]
        return Decoded(logits, decoded.features, presence, candidates)


def check_sizes(config: SAM3Config) -> None:
    """Raises a ValueError if the sizes don't go together."""
    vision = config.vision
    heads = (config.encoder_heads, config.mask_heads, GROUPS, 4)
    heads += () if config.instances is None else (config.instances.heads,)
    demands = {
        f"the vision tower's heads, {vision.heads}, must divide its width, {vision.width}, into multiples of 4": (
            vision.width % (4 * vision.heads) == 0
        ),
        f"the text tower's heads, {config.text.heads}, must divide its width, {config.text.width}": (
            config.text.width % config.text.heads == 0
        ),
        f"{', '.join(map(str, heads))} must each divide the width, {config.width}": not any(
            config.width % divisor for divisor in heads
        ),
        f"the patch, {vision.patch}, must divide the stored positions' image, {vision.image_size}": (
            vision.image_size % vision.patch == 0
        ),
        f"global_blocks must be among the {vision.blocks} blocks, got {vision.global_blocks}": all(
            0 <= number < vision.blocks for number in vision.global_blocks
        ),
        "masks of instances need the sizes of the part that finds them": (
            config.masks == "semantic" or config.instances is not None
        ),
        f"the scales must be 1, or 2 and 1, or 4, 2 and 1, got {vision.scales}": are_consecutive(vision.scales),
    }
    for problem, holds in demands.items():
        if not holds:
            raise ValueError(problem)
