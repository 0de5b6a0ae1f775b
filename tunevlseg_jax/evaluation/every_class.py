"""Scores that exist where every image is asked for every class: multi-class IoU, and false positives."""

from collections.abc import Sequence

import numpy as np

from tunevlseg_jax.evaluation.record_scores import Sample, lesion_sums

PRESENT = 0.5
"""Presence above which a model says that a class is there."""


class Classes:
    """Scores of all classes together: each pixel belongs to one class, or to the background.

    A pixel goes to the class with the highest logit where that is over 0, and to the background elsewhere. Void
    pixels count nowhere.
    """

    def __init__(self, count: int):
        self.intersection, self.union = (np.zeros(count + 1, np.int64) for _ in range(2))
        self.overlapping = False

    def __add__(self, other: "Classes") -> "Classes":
        """The scores of both, which have seen different images."""
        both = Classes(len(self.union) - 1)
        both.intersection, both.union = self.intersection + other.intersection, self.union + other.union
        both.overlapping = self.overlapping or other.overlapping
        return both

    def add(self, logits: np.ndarray, masks: np.ndarray, void: np.ndarray) -> None:
        """One image.

        Args:
          logits: (class, height, width), less the logit of the threshold.
          masks: (class, height, width) bool, the true masks.
          void: (height, width) bool, pixels that count nowhere.
        """
        background = len(logits)
        predicted = np.where(logits.max(axis=0) > 0, logits.argmax(axis=0), background)
        true = np.where(masks.any(axis=0), masks.argmax(axis=0), background)
        self.overlapping |= bool((masks.sum(axis=0) > 1).any())
        matched = np.bincount(true[(predicted == true) & ~void], minlength=background + 1)
        counts = [np.bincount(classes[~void], minlength=background + 1) for classes in (predicted, true)]
        self.intersection += matched
        self.union += sum(counts) - matched

    @property
    def iou(self) -> np.ndarray:
        """(class + 1,) over the whole set, the background last; NaN where neither mask has the class."""
        return np.where(self.union > 0, self.intersection / np.maximum(self.union, 1), np.nan)


def presence_scores(samples: Sequence[Sample]) -> dict[str, float | None]:
    """How well a model knows which classes are there; nothing for a model that doesn't say.

    Returns:
      presence_auroc, the share of the pairs of a record whose class is there and one whose class is absent in which the
      first has the higher presence, ties counting half; presence_true_rate and presence_false_rate, the shares of both
      kinds of records with a presence over 0.5; None where there is no record of a kind.
    """
    known = [(sample.presence, sample.target > 0) for sample in samples if sample.presence is not None]
    if not known:
        return {}
    there, absent = (np.array([value for value, is_there in known if is_there == kind]) for kind in (True, False))
    ordered = np.sort(absent)
    # The absent records below each present one, and half of those beside it.
    below = (np.searchsorted(ordered, there, "left") + np.searchsorted(ordered, there, "right")) / 2
    return {
        "presence_auroc": float(np.mean(below / absent.size)) if there.size and absent.size else None,
        "presence_true_rate": float(np.mean(there > PRESENT)) if there.size else None,
        "presence_false_rate": float(np.mean(absent > PRESENT)) if absent.size else None,
    }


def absent_rates(samples: Sequence[Sample], images: int) -> dict[str, float | int | None]:
    """False positives in records that ask for an absent class.

    Returns:
      absent_records, their number; false_positive_rate, the share of them in which any pixel is predicted;
      absent_classes_marked_per_image, the same ones per image of all `images`; absent_false_lesions_per_image, the
      predicted connected components in them, likewise.
    """
    absent = [sample for sample in samples if sample.target == 0]
    marked = sum(sample.predicted > 0 for sample in absent)
    return {
        "absent_records": len(absent),
        "false_positive_rate": marked / len(absent) if absent else None,
        "absent_classes_marked_per_image": marked / images,
        "absent_false_lesions_per_image": sum(lesion_sums(absent)[2].values()) / images,
    }
