"""Which data a run uses, and how they are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["paper", "clean"]


Placement = Literal["auto", "resident", "streaming"]


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """How much of the embedded data set to make, and how.

    Attributes:
      train: number of training records.
      val: number of validation records.
      test: number of test records.
      seed: of the scenes.
      absent_fraction: share of records that ask for a class that isn't there.
      varied: whether training phrases vary ("a photo of a seven"), or are the class name alone.
      prompts_per_image: classes that each training scene is asked for, 1 to 10: those that are there, then others.
    """

    train: int = 400
    val: int = 100
    test: int = 200
    seed: int = 0
    absent_fraction: float = 0.0
    varied: bool = False
    prompts_per_image: int = 1


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data set.

    Attributes:
      name: of a prepared set, or scenes/photo, scenes/ultrasound, scenes/endoscopy or scenes/xray.
      root: folder of the prepared sets.
      protocol: "paper" for a set as it was prepared; "clean" for the splits without leaks that `prepare check` writes.
      prompt_index: which prompts, where a set has several kinds: 1 is the class name, more have more words.
      shots: number of training records of each class, drawn by shots_seed; None for all. More shots contain fewer.
      shots_seed: of that draw.
      cache: folder that keeps prepared sets at the model's size; None for the user's cache folder.
      full_stop: whether prompts end in a full stop.
      truncate: whether prompts that are too long are cut before their end, instead of being an error.
      placement: where pixels are kept: "resident" on every device, "streaming" on the host, which sends each batch;
        "auto" keeps a split on devices that have memory of their own if it fits in a quarter of what is free.
      workers: threads that gather batches ahead of the step, in streaming; 0 for none.
      scenes: settings of the embedded data set.
    """

    name: str = "scenes/ultrasound"
    root: str = "data"
    protocol: Protocol = "paper"
    prompt_index: int = 1
    shots: int | None = None
    shots_seed: int = 0
    cache: str | None = None
    full_stop: bool = True
    truncate: bool = False
    placement: Placement = "auto"
    workers: int = 1
    scenes: Scenes = field(default_factory=Scenes)
