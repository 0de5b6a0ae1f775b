"""Coverage of every class of a set: what share of the images its masks mark, and whether that is likely the object."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table

from tunevlseg_jax.data.audit import orientation
from tunevlseg_jax.data.audit.map_stats import MODEL_SIZE, RecordStats, counts, record_stats
from tunevlseg_jax.data.audit.orientation import Vote
from tunevlseg_jax.data.examples import Example

Shapes = Mapping[str, Sequence[RecordStats]]
"""The statistics of all records by class."""


def by_class(stats: Iterable[RecordStats]) -> Shapes:
    """The statistics of records by class, in the order of the classes' first records."""
    classes: dict[str, list[RecordStats]] = defaultdict(list)
    for one in stats:
        classes[one.record.label].append(one)
    return classes


def table(shapes: Shapes) -> Table:
    """A row for each class: its records, the empty ones, and the share of the image that the others mark."""
    table = Table(title="share of the image that each class's masks mark")
    for column in ("class", "records", "empty", "smallest", "median", "largest"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for label, stats in shapes.items():
        shares = [one.coverage for one in stats if one.pixels]
        shown = [_percent(value) for value in np.percentile(shares, (0, 50, 100))] if shares else ["-"] * 3
        table.add_row(label, f"{len(stats)}", f"{len(stats) - len(shares)}", *shown)
    return table


def inverted(shapes: Shapes) -> Iterator[tuple[str, str]]:
    """(class, details) of each class most of whose masks mark most of the image and of its border."""
    for label, stats in shapes.items():
        filled = [one for one in stats if one.pixels]
        outside = sum(one.mostly_outside for one in filled)
        if 2 * outside > len(filled):
            share = _percent(float(np.median([one.coverage for one in filled])))
            yield (
                label,
                f"{outside} of {len(filled)} masks mark most of the image and of its border, {share} in the median: "
                "the background is likelier the object",
            )


class Survey:
    """Watches the examples of a set as it is written.

    Attributes:
      stats: the statistics of the records.
      without_records: the images that have none.
      names: the images.
      votes: for each image, whether its masks fit it as its EXIF orientation turns it.
      groups: for each patient or video, its first image in each split.
    """

    def __init__(self):
        self.stats: list[RecordStats] = []
        self.without_records: list[str] = []
        self.names: list[str] = []
        self.votes: list[Vote | None] = []
        self.groups: dict[str, dict[str, str]] = defaultdict(dict)

    def watch(self, splits: Mapping[str, Iterable[Example]]) -> dict[str, Iterator[Example]]:
        """The same splits, whose examples are counted when they are read."""
        return {split: self._watch(split, examples) for split, examples in splits.items()}

    def _watch(self, split: str, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            name = f"{split}/{example.id}"
            self._add(name, example)
            if example.group:
                self.groups[example.group].setdefault(split, name)
            yield example

    def _add(self, name: str, example: Example) -> None:
        maps = example.maps()
        self.names.append(name)
        self.votes.append(None)
        self.stats += record_stats(example.records, maps, counts(maps))
        if not example.records:
            self.without_records.append(name)
        if orientation.is_turned(example.image):
            masks = [maps[record.mask] == record.value for record in example.records]
            self.votes[-1] = orientation.vote(example.image, example.rgb(), masks)

    def warnings(self, *, invertible: bool) -> Iterator[str]:
        """A line for each kind of mask that is likely wrong; `invertible` if the command has --invert."""
        shapes = by_class(self.stats)
        for label, stats in shapes.items():
            if not any(one.pixels for one in stats):
                yield f"class {label!r}: {'its mask is' if len(stats) == 1 else f'all {len(stats)} masks are'} empty"
        for label, stats in shapes.items():
            filled = [one for one in stats if one.pixels]
            if filled and all(one.has_no_background for one in filled):
                yield (
                    f"class {label!r}: all pixels beside it are ignored, in {len(filled)} of {len(filled)} masks; "
                    "nothing teaches what isn't it: leave out --ignore-value, or a void class"
                )
        for label, details in inverted(shapes):
            yield f"class {label!r}: {details}" + "; --invert swaps them" * invertible
        whole = {label for label, _ in inverted(shapes)}
        if odd := [one for one in self.stats if one.like_background and one.record.label not in whole]:
            yield (
                f"{_records(len(odd))}, such as {odd[0].record.id!r}, {_verb(len(odd), 'mark')} everything but what "
                "looks like the object"
            )
        if across := {group: images for group, images in self.groups.items() if len(images) > 1}:
            group, images = next(iter(across.items()))
            yield (
                f"{len(across)} of {len(self.groups)} groups (patients, videos or originals of copies) "
                f"{_verb(len(across), 'lie')} in several splits, such as {group!r} in {' and '.join(images.values())}: "
                "scores would be too high; `check` lists them, and its --protocol clean keeps them together"
            )
        if unturned := orientation.unturned(self.votes):
            yield (
                f"the masks of {len(unturned)} of {len(self.names)} images, such as {self.names[unturned[0]]!r}, fit "
                "the photo as it is stored, not as its EXIF orientation turns it; turn these masks, or remove the "
                "orientation from the photos"
            )
        if lost := [one for one in self.stats if one.vanishes]:
            yield vanishing(lost)


def vanishing(lost: Sequence[RecordStats]) -> str:
    """A line on the objects that vanish when their maps are resized to the model's size."""
    largest = max(lost, key=lambda one: one.pixels)
    return (
        f"the objects of {_records(len(lost))} vanish at the model's {MODEL_SIZE[0]}x{MODEL_SIZE[1]} pixels, the "
        f"largest of {largest.pixels} pixels in {largest.record.id!r}; crop the images around the objects"
    )


def _records(count: int) -> str:
    return f"{count} record{'s' * (count != 1)}"


def _verb(count: int, verb: str) -> str:
    return verb + "s" * (count == 1)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else f"{share:.2g}"
