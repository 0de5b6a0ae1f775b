"""The embedded data set, nothing to download: handwritten digits blended into photographs, in four imaging domains.

Everything comes from files that scikit-learn ships: its 1,797 handwritten digits are the objects and crops of its two
sample photographs the backgrounds. Scene i of a split has one geometry, whatever the domain, so that the four domains
(`photo`, `ultrasound`, `endoscopy`, `xray`) differ in appearance alone: a model pretrained on `photo` meets in each of
the others the kind of shift that a model pretrained on natural images meets in medical ones.

Neither a digit sample nor a photograph's pixel is shared between the splits.
"""

import difflib
import functools
import importlib.resources
from pathlib import Path

import cv2
import numpy as np

from tunevlseg_jax.data.images import read_rgb
from tunevlseg_jax.data.records import Records, packed
from tunevlseg_jax.data.scene_domains import RENDERERS, SIZE, Scene

DOMAINS = tuple(RENDERERS)
SPLITS = ("train", "val", "test")
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHRASINGS = (
    "{}",
    "a photo of a {}",
    "the digit {}",
    "a handwritten {}",
    "an image of the number {}",
    "the number {} in the picture",
    "every {} that is written here",
    "the shape of the digit {}",
)

# Geometry. Most scenes have two or three digits, so that marking all digits, whatever the prompt, scores badly.
DIGIT_COUNTS = (0.2, 0.45, 0.35)  # share of the scenes with one, two and three digits
DIGIT_SIZES = (38.0, 43.0)  # range of heights in pixels
MAX_ROTATION = 10.0  # degrees either way: a six stays a six
FIELD_RADIUS = 62.0  # pixels from the middle that a digit reaches, by half its height: some domains' corners are dark
LATTICE = 12.0  # centres lie on its nodes, in pixels: a small model then learns to read digits within minutes
PLACEMENTS = 24  # places tried for a digit before it is left out
DIGIT_ASPECT = 0.75  # width over height of the area that other digits stay out of
SPACING = 0.95  # least distance between two digits, in mean digit heights

# Where each split's backgrounds come from: columns of both photographs.
REGIONS = {"train": slice(208, 640), "val": slice(0, 104), "test": slice(104, 208)}
CROP_SIDES = (64, 104)  # pixels, before it is resized to SIZE

DIGIT_SPLIT = {"train": slice(0, 1257), "val": slice(1257, 1527), "test": slice(1527, 1797)}
STROKE_SIDE = 64  # side of an enlarged digit; the 8x8 sample covers its middle half
STROKE_LEVEL = 0.46  # ink (0 to 1) at which a stroke ends
STROKE_SLOPE = 3.0  # how steeply a stroke's opacity falls at its edge


def load(
    domain: str,
    split: str,
    count: int,
    *,
    seed: int = 0,
    absent_fraction: float = 0.0,
    varied: bool = False,
    prompts_per_image: int = 1,
) -> Records:
    """Generates the first `count` scenes of a split in one domain, each with one record or more.

    A record's mask is the union of the digits of its class. Scene i's geometry, mask and prompt depend
    only on (seed, split, i), its pixels only on (seed, split, i, domain): asking for more scenes adds to the end.

    Args:
      domain: one of DOMAINS.
      split: one of SPLITS.
      count: the number of scenes, at least 1. A thousand take about 37 MB and a second or two.
      seed: seed of the scenes, at least 0.
      absent_fraction: fraction in [0, 1] of records whose class isn't in the scene; their masks are empty.
      varied: give each prompt all PHRASINGS instead of the bare class name.
      prompts_per_image: number of records per scene: the first as above, then the other classes in the scene, then
        classes that aren't in it, whose masks are empty.

    Returns:
      Records with images (count, 96, 96, 3), `prompts_per_image` records to an image, and one prompt per class in the
      order of CLASSES.

    Raises:
      ValueError: a domain or split that doesn't exist, or a count, seed or fraction out of range.
    """
    _check(domain, split, count, seed, absent_fraction, prompts_per_image)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((count, prompts_per_image, SIZE, SIZE), bool)
    prompt = np.empty((count, prompts_per_image), np.int32)
    shown = np.zeros((count, len(CLASSES)), bool)
    for index in range(count):
        rng = _generator(seed, split, index, 0)
        scene = _scene(rng, split)
        shown[index, scene.labels] = True
        prompt[index] = _draw_classes(rng, scene.labels, absent_fraction, prompts_per_image)
        masks[index] = [(scene.alphas[scene.labels == label] > 0.5).any(axis=0) for label in prompt[index]]
        pixels = RENDERERS[domain](scene, _generator(seed, split, index, 1 + DOMAINS.index(domain)))
        images[index] = cv2.convertScaleAbs(np.maximum(pixels, 0.0), alpha=255.0)  # rounds, and saturates at 255
    return Records(
        name=f"scenes/{domain}",
        split=split,
        images=images,
        **packed(masks.reshape(-1, SIZE, SIZE)),
        image=np.repeat(np.arange(count, dtype=np.int32), prompts_per_image),
        label=prompt.reshape(-1),
        prompt=prompt.reshape(-1),
        classes=CLASSES,
        prompts=tuple(tuple(p.format(name) for p in (PHRASINGS if varied else ("{}",))) for name in CLASSES),
        names=tuple(f"{split}-{index:05d}" for index in range(count)),
        ids=tuple(
            f"{split}-{index:05d}" if prompts_per_image == 1 else f"{split}-{index:05d}-{CLASSES[label]}"
            for index in range(count)
            for label in prompt[index]
        ),
        shown=shown,
        complete=np.ones(len(CLASSES), bool),
    )


@functools.cache
def digit_rows(split: str) -> np.ndarray:
    """The rows of `sklearn.datasets.load_digits()` that a split's digits come from; no row is in two splits."""
    return np.random.default_rng(0).permutation(1797)[DIGIT_SPLIT[split]]


def _check(domain: str, split: str, count: int, seed: int, absent_fraction: float, prompts_per_image: int) -> None:
    for kind, value, known in (("domain", domain, DOMAINS), ("split", split, SPLITS)):
        if value not in known:
            nearest = difflib.get_close_matches(str(value), known, n=1, cutoff=0.0)[0]
            raise ValueError(f"no {kind} {value!r} in scenes (did you mean {nearest!r}? there are {', '.join(known)})")
    if count <= 0:
        raise ValueError(f"count must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not 0.0 <= absent_fraction <= 1.0:
        raise ValueError(f"absent_fraction must be in [0, 1], got {absent_fraction}")
    if not 1 <= prompts_per_image <= len(CLASSES):
        raise ValueError(f"prompts_per_image must be 1 to {len(CLASSES)}, got {prompts_per_image}")


def _generator(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    """Stream 0 draws a scene's geometry and prompt, stream 1 + d the noise of domain d."""
    # NumPy pads a short seed with zeros, so the stream comes first: (seed, split, index, 0) could be another's seed.
    return np.random.default_rng((1 + stream, SPLITS.index(split), index, seed))


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits enlarged, (1797, STROKE_SIDE, STROKE_SIDE) float32 ink in about [0, 1], and their labels (1797,)."""
    from sklearn.datasets import load_digits  # takes a second to import, which only this data set should cost

    pixels, labels = load_digits(return_X_y=True)
    samples = np.asarray(pixels, np.float32).reshape(-1, 8, 8)
    padded = np.pad(samples / 16.0, np.asarray([(0, 0), (4, 4), (4, 4)]))
    size = (STROKE_SIDE, STROKE_SIDE)
    enlarged = [cv2.GaussianBlur(cv2.resize(p, size, interpolation=cv2.INTER_CUBIC), (0, 0), 1.3) for p in padded]
    return np.stack(enlarged), np.asarray(labels)


@functools.cache
def _photographs(split: str) -> tuple[np.ndarray, ...]:
    """A split's region of each sample photograph, (427, columns, 3) uint8, RGB."""
    folder = Path(str(importlib.resources.files("sklearn"))) / "datasets" / "images"
    return tuple(read_rgb(folder / name)[:, REGIONS[split]] for name in ("china.jpg", "flower.jpg"))


def _scene(rng: np.random.Generator, split: str) -> Scene:
    background = _background(rng, split)
    ink, labels = _digits()
    rows, alphas = [], []
    for x, y, height in _places(rng):
        row = rng.choice(digit_rows(split))
        rows.append(row)
        alphas.append(_stroke(ink[row], x, y, height, rng.uniform(-MAX_ROTATION, MAX_ROTATION)))
    for upper in range(1, len(alphas)):  # a later digit lies on top of the earlier ones
        for lower in range(upper):
            alphas[lower] *= 1.0 - alphas[upper]
    return Scene(background, np.stack(alphas), labels[rows])


def _background(rng: np.random.Generator, split: str) -> np.ndarray:
    photograph = _photographs(split)[rng.integers(2)]
    side = int(rng.integers(CROP_SIDES[0], CROP_SIDES[1] + 1))
    top, left = (int(rng.integers(extent - side + 1)) for extent in photograph.shape[:2])
    crop = photograph[top : top + side, left : left + side, :]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return cv2.resize(np.ascontiguousarray(crop), (SIZE, SIZE)).astype(np.float32) / 255.0


def _places(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centres (x, y) and heights in pixels of one to three digits that hardly overlap."""
    count = 1 + int(np.searchsorted(np.cumsum(DIGIT_COUNTS[:-1]), rng.random(), side="right"))
    heights = rng.uniform(*DIGIT_SIZES, size=count)
    offsets = rng.uniform(-1.0, 1.0, size=(count, PLACEMENTS, 2))
    places: list[tuple[float, float, float]] = []
    for height, candidates in zip(heights.tolist(), offsets.tolist(), strict=True):
        for u, v in candidates:
            place = _inside_field(u, v, height)
            if all(_apart(place, other) for other in places):
                places.append(place)
                break
    return places


def _inside_field(u: float, v: float, height: float) -> tuple[float, float, float]:
    """The place (x, y, height) at an offset (u, v) in [-1, 1] from the centre, moved inwards if outside the field."""
    reach = SIZE / 2 - 0.5 * height
    limit = (FIELD_RADIUS - 0.5 * height) / max(reach * (u * u + v * v) ** 0.5, 1e-6)
    scale = reach * min(1.0, limit)
    return _on_lattice(SIZE / 2 + u * scale), _on_lattice(SIZE / 2 + v * scale), height


def _on_lattice(position: float) -> float:
    return round(position / LATTICE) * LATTICE


def _apart(first: tuple[float, float, float], second: tuple[float, float, float]) -> bool:
    across, down = (first[0] - second[0]) / DIGIT_ASPECT, first[1] - second[1]
    return (across * across + down * down) ** 0.5 >= SPACING * 0.5 * (first[2] + second[2])


def _stroke(ink: np.ndarray, x: float, y: float, height: float, degrees: float) -> np.ndarray:
    """Opacity (SIZE, SIZE) float32 in [0, 1] of a digit centred at (x, y): smooth strokes with soft edges."""
    middle = (STROKE_SIDE - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, height / (STROKE_SIDE / 2))
    matrix[:, 2] += x - middle, y - middle
    placed = cv2.warpAffine(ink, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    return np.clip((placed - STROKE_LEVEL) * STROKE_SLOPE + 0.5, 0.0, 1.0)


def _draw_classes(rng: np.random.Generator, labels: np.ndarray, absent_fraction: float, number: int) -> list[int]:
    """The classes of a scene's records: one that is present, or for a fraction of the scenes one that is absent; then
    the others, present ones before absent ones.
    """
    chance, choice = rng.random(2)
    present = set(labels.tolist())
    classes = [c for c in range(len(CLASSES)) if (c in present) != (chance < absent_fraction)]
    first = classes[int(choice * len(classes))]
    others = [c for c in rng.permutation(len(CLASSES)).tolist() if c != first] if number > 1 else []
    return [first, *sorted(others, key=lambda c: c not in present)][:number]
