"""Tiny copies of the ten public sets as they are downloaded, with their quirks, and what their masks mean."""

import csv
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
from PIL import Image

from tunevlseg_jax.data.builders import voc2012
from tunevlseg_jax.data.builders.cityscapes import NAMES


@dataclass
class Meant:
    """What a copy means.

    Attributes:
      masks: (height, width) bool by image and record.
      prompts: by record.
      groups: by image.
      photos: (height, width, 3) uint8 by image, where the file is lossless and a reader may get its pixels wrong.
    """

    masks: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    prompts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    photos: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, image: str, record: str, mask: np.ndarray, *prompts: str, group: str = "") -> None:
        self.masks.setdefault(image, {})[record] = mask
        self.prompts[record] = prompts
        self.groups[image] = group


def blob(rng: np.random.Generator, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """(height, width) bool, a box that lies differently each time, on JPEG's blocks."""
    mask = np.zeros(size, bool)
    top, left = rng.integers(0, (size[0] - 8) // 8 + 1) * 8, rng.integers(0, (size[1] - 8) // 8 + 1) * 8
    mask[top : top + 8, left : left + 8] = True
    return mask


def photo(rng: np.random.Generator, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return rng.integers(0, 256, (*size, 3), np.uint8)


def smooth(rng: np.random.Generator, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """(height, width, 3) uint8, coarse and fine shapes in reddish light, as photographs have them."""
    coarse, fine = (rng.normal(size=size).astype(np.float32) for _ in range(2))
    coarse, fine = cv2.GaussianBlur(coarse, (0, 0), size[0] / 8), cv2.GaussianBlur(fine, (0, 0), size[0] / 32)
    light = 0.5 + 0.12 * coarse / coarse.std() + 0.06 * fine / fine.std()
    tint = cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), size[0] / 4)
    tint = 0.05 * tint / tint.std()
    shown = np.stack([light * 1.3 + tint, light - tint, light * 0.9], -1)
    return (255 * np.clip(shown, 0, 1)).astype(np.uint8)


def in_another_light(image: np.ndarray) -> np.ndarray:
    """The frame of an endoscope in another mode: red is filtered out, and green and blue show it in false colours."""
    red, green, blue = np.moveaxis(image.astype(np.float32) / 255, -1, 0)
    shown = np.stack([0.55 * green + 0.1 * red, 0.3 * red + 0.6 * blue, 0.9 * blue + 0.1], -1)
    return (255 * np.clip(shown, 0, 1) ** 1.2).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> None:
    """By the suffix; colours are RGB or RGBA."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def kvasir(root: Path, rng: np.random.Generator) -> Meant:
    """JPEG masks of three channels, whose edges ring."""
    meant = Meant()
    for number in range(10):
        mask = blob(rng)
        save(root / "Kvasir-SEG" / "images" / f"cju{number}.jpg", photo(rng))
        save(root / "Kvasir-SEG" / "masks" / f"cju{number}.jpg", np.repeat(mask[..., None] * np.uint8(255), 3, -1))
        meant.add(f"cju{number}", f"cju{number}", mask, "polyp")
    (root / "Kvasir-SEG" / "kavsir_bboxes.json").write_text("{}")
    return meant


def clinicdb(root: Path, rng: np.random.Generator) -> Meant:
    """TIFF, as it was published: colours that are declared grey, and masks with dark greys beside the object."""
    meant = Meant()
    grey = {262: 1}  # PhotometricInterpretation: black is zero
    for number in range(1, 11):
        mask, image = blob(rng), photo(rng)
        shades = np.where(mask, np.uint8(255), np.uint8(90) * (blob(rng) & (number % 4 == 0)))
        save(root / "CVC-ClinicDB" / "Original" / f"{number}.tif", image, tiffinfo=grey)
        save(root / "CVC-ClinicDB" / "Ground Truth" / f"{number}.tif", shades)
        meant.photos[f"{number}"] = image
        meant.add(f"{number}", f"{number}", mask, "polyp")
    return meant


def clinicdb_sequences(root: Path, rng: np.random.Generator) -> Meant:
    """The copy with PNG, TIFF and the sequences of the frames."""
    meant = clinicdb(root / "TIF", rng)
    rows = [["frame_id", "sequence_id", "tif_image_path"]]
    for number in range(1, 11):
        group = f"sequence {1 + number // 3}"
        rows.append([str(number), group.removeprefix("sequence "), ""])
        mask, meant.photos[f"{number}"] = blob(rng), photo(rng)
        save(root / "PNG" / "Original" / f"{number}.png", meant.photos[f"{number}"])
        save(root / "PNG" / "Ground Truth" / f"{number}.png", mask * np.uint8(255))
        meant.add(f"{number}", f"{number}", mask, "polyp", group=group)
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return meant


def bkai(root: Path, rng: np.random.Generator) -> Meant:
    """JPEG masks in red and green, which JPEG smears; both are polyps. A file has two names, a frame two lights."""
    meant = Meant()
    frame = smooth(rng, (24, 32))
    photos = [photo(rng) for _ in range(10)]
    photos[1], photos[2], photos[3] = photos[0], frame, in_another_light(frame)
    for number, image in enumerate(photos):
        red, green = blob(rng), blob(rng)
        colours = np.zeros((24, 32, 3), np.uint8)
        colours[red], colours[green] = (255, 0, 0), (0, 255, 0)
        save(root / "train" / "train" / f"{number}f.jpeg", image)
        save(root / "train_gt" / "train_gt" / f"{number}f.jpeg", colours)
        save(root / "test" / "test" / f"{number}e.jpeg", photo(rng))
        meant.add(f"{number}f", f"{number}f", red | green, "polyp")
    return meant


def isic2016(root: Path, rng: np.random.Generator) -> Meant:
    """Four zip files."""
    meant = Meant()
    for pool, numbers in (("Training", range(10)), ("Test", range(10, 14))):
        part = f"ISBI2016_ISIC_Part1_{pool}"
        for number in numbers:
            key, mask = f"ISIC_{number:07d}", blob(rng)
            save(root / f"{part}_Data" / f"{key}.jpg", photo(rng))
            save(root / f"{part}_GroundTruth" / f"{key}_Segmentation.png", mask * np.uint8(255))
            meant.add(key, f"{key}_Segmentation", mask, "skin melanoma")
        for kind in ("Data", "GroundTruth"):
            pack(root / f"{part}_{kind}")
    return meant


def isic2016_part3(root: Path, rng: np.random.Generator) -> Meant:
    """The images of part 3B beside the masks of part 1, and part 3B's test folder, which holds its masks."""
    meant = isic2016(root, rng)
    for pool, numbers in (("Training", range(10)), ("Test", range(10, 14))):
        part, other = f"ISBI2016_ISIC_Part1_{pool}", root / f"ISBI2016_ISIC_Part3B_{pool}_Data"
        (root / f"{part}_Data.zip").unlink()
        for number in numbers:
            key = f"ISIC_{number:07d}"
            save(other / f"{key}.jpg", photo(rng))
            if pool == "Test":
                save(other / f"{key}_Segmentation.png", meant.masks[key][f"{key}_Segmentation"] * np.uint8(255))
    (root / "ISBI2016_ISIC_Part1_Test_GroundTruth.zip").unlink()
    return meant


def pack(folder: Path) -> None:
    """Turns a folder into a zip file of the same name."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
            archive.writestr(f"__MACOSX/{folder.name}/._{path.name}", b"")
            path.unlink()
    folder.rmdir()


def dfu2022(root: Path, rng: np.random.Generator) -> Meant:
    meant = Meant()
    for number in range(100001, 100011):
        mask = blob(rng)
        release = root / "DFUC2022_train_release"
        save(release / "DFUC2022_train_images" / f"{number}.jpg", photo(rng))
        save(release / "DFUC2022_train_masks" / f"{number}.png", mask * np.uint8(255))
        save(root / "DFUC2022_val_release" / f"{number + 50}.jpg", photo(rng))
        meant.add(f"{number}", f"{number}", mask, "foot ulcer")
    return meant


def busi(root: Path, rng: np.random.Generator) -> Meant:
    """Grey, 1-bit, RGB and RGBA masks, two masks for one image, and empty ones; a benign image is a malignant one."""
    meant = Meant()
    twin = smooth(rng, (24, 32))
    folder = root / "Dataset_BUSI_with_GT"
    for kind in ("benign", "malignant", "normal"):
        for number in range(1, 11):
            mask = np.zeros((24, 32), bool) if kind == "normal" else blob(rng)
            name = f"{kind} ({number})"
            image = photo(rng)
            if (kind, number) in (("benign", 6), ("malignant", 5)):  # the same but for the compression
                image = np.clip(twin + rng.integers(0, 3, twin.shape), 0, 255).astype(np.uint8)
            save(folder / kind / f"{name}.png", image)
            grey = mask * np.uint8(255)
            colours = np.repeat(grey[..., None], 3, -1)
            opaque = np.dstack([colours, np.full_like(grey, 255)])
            save(folder / kind / f"{name}_mask.png", (grey, mask, colours, opaque)[number % 4])
            if kind == "benign" and number == 3:
                for extra in ("_mask_1", "_mask_2"):
                    more = blob(rng)
                    save(folder / kind / f"{name}{extra}.png", more)
                    mask = mask | more
            prompt = f"{'No tumor' if kind == 'normal' else 'Tumor'} in the breast ultrasound image."
            meant.add(f"{number}_{kind}", f"{number}_{kind}", mask, prompt)
    return meant


def camus_masks(rng: np.random.Generator) -> np.ndarray:
    """(height, width) uint8 of 0 ... 3, taller than wide, so that swapped axes show."""
    return np.repeat(rng.integers(0, 4, (10, 1), np.uint8), 6, 1) * (rng.random((10, 6)) < 0.8).astype(np.uint8)


def camus_meant(meant: Meant, patient: str, phase: str, classes: np.ndarray) -> None:
    names = ("Left ventricular cavity", "Myocardium", "Left atrium cavity")
    for value, name in enumerate(names, 1):
        key = f"{patient}_{phase}"
        prompts = (f"{name} of the heart.", f"{name} in the cardiac ultrasound.")
        meant.add(key, f"mask_{value}/{key}_gt", classes == value, *prompts, group=patient)


PHASES = ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES")


def camus(root: Path, rng: np.random.Generator) -> Meant:
    """NIfTI of 32-bit floats, whose axes are swapped, with the release's own subgroups."""
    meant = Meant()
    groups: dict[str, list[str]] = {"training": [], "validation": [], "testing": []}
    for number, subgroup in ((1, "training"), (2, "training"), (7, "validation"), (451, "testing")):
        patient = f"patient{number:04d}"
        groups[subgroup].append(patient)
        folder = root / "CAMUS_public" / "database_nifti" / patient
        folder.mkdir(parents=True)
        for phase in PHASES:
            classes = camus_masks(rng)
            for suffix, array in (("", rng.integers(0, 256, (10, 6), np.uint8)), ("_gt", classes)):
                path = folder / f"{patient}_{phase}{suffix}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array.T, np.float32), np.eye(4)), path)
            camus_meant(meant, patient, phase, classes)
        nibabel.save(
            nibabel.Nifti1Image(np.zeros((6, 10, 3), np.uint8), np.eye(4)),
            folder / f"{patient}_2CH_half_sequence.nii.gz",
        )
        (folder / "Info_4CH.cfg").write_text(f"ED: 1\nES: 9\nSex: {'FM'[number % 2]}\nAge: 60\n")
    split = root / "CAMUS_public" / "database_split"
    split.mkdir()
    for subgroup, patients in groups.items():
        (split / f"subgroup_{subgroup}.txt").write_text("\n".join(patients) + "\n")
    return meant


def camus_old(root: Path, rng: np.random.Generator) -> Meant:
    """MetaImage, with test patients that are numbered from 1 again."""
    meant = Meant()
    for pool, count, first in (("training", 9, 0), ("testing", 1, 450)):
        for number in range(1, count + 1):
            folder = root / pool / f"patient{number:04d}"
            folder.mkdir(parents=True)
            for phase in PHASES:
                classes = camus_masks(rng)
                for suffix, array in (("", rng.integers(0, 256, (10, 6), np.uint8)), ("_gt", classes)):
                    name = f"patient{number:04d}_{phase}{suffix}"
                    (folder / f"{name}.raw").write_bytes(array.tobytes())
                    (folder / f"{name}.mhd").write_text(
                        "ObjectType = Image\nNDims = 3\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
                        f"DimSize = 6 10 1\nElementType = MET_UCHAR\nElementDataFile = {name}.raw\n"
                    )
                camus_meant(meant, f"patient{number + first:04d}", phase, classes)
    return meant


def run_lengths(mask: np.ndarray) -> str:
    """COCO's text of a mask, written here from the format's description: columns, differences, groups of five bits."""
    flat = mask.flatten(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            group, value = value & 31, value >> 5
            last = value == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if last else 32))
            if last:
                break
    return text


def chexlocalize(root: Path, rng: np.random.Generator) -> Meant:
    """Run lengths, findings that aren't there, and images without any."""
    meant = Meant()
    for part in ("val", "test"):
        stored = {}
        for number in range(1, 7):
            patient = f"patient6{'v' in part:d}{number:03d}"
            for view in ("view1_frontal", "view2_lateral")[: 1 + number % 2]:
                size = (24, 32 + 8 * number)
                key = f"{patient}_study1_{view}"
                save(root / "CheXpert" / part / patient / "study1" / f"{view}.jpg", photo(rng, size)[..., 0])
                shown = {"Lung Opacity": blob(rng, size), "Pleural Effusion": rng.random(size) < 0.3}
                if number == 6:
                    shown = {}
                empty = np.zeros(size, bool)
                stored[key] = {
                    name: {"size": list(size), "counts": run_lengths(shown.get(name, empty))}
                    for name in ("Lung Opacity", "Pleural Effusion", "Edema")
                }
                for name, mask in shown.items():
                    name = {"Lung Opacity": "Airspace Opacity"}.get(name, name)
                    record = f"{key}_{name.lower().replace(' ', '_')}"
                    meant.add(key, record, mask, f"{name} in a chest Xray.", group=patient)
        path = root / "CheXlocalize" / f"gt_segmentations_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(stored))
    return meant


def cityscapes(root: Path, rng: np.random.Generator) -> Meant:
    """Label ids of which 19 of 34 are asked for."""
    meant = Meant()
    for split, cities in (("train", ("aachen", "bochum")), ("val", ("lindau",))):
        for city in cities:
            for number in range(2):
                key = f"{city}_{number:06d}_000019"
                labels = np.repeat(rng.permutation(34).astype(np.uint8), 4)[: 8 * 12].reshape(8, 12)
                save(root / "leftImg8bit" / split / city / f"{key}_leftImg8bit.png", photo(rng, (8, 12)))
                fine = root / "gtFine" / split / city
                save(fine / f"{key}_gtFine_labelIds.png", labels)
                save(fine / f"{key}_gtFine_color.png", photo(rng, (8, 12)))
                for value, name in NAMES.items():
                    if (labels == value).any():
                        meant.add(key, f"{name}/{key}", labels == value, name, group=city)
    return meant


def voc2012_set(root: Path, rng: np.random.Generator) -> Meant:
    """Palette masks with void outlines, images without a mask, one of them a grey copy."""
    meant = Meant()
    folder = root / "VOCdevkit" / "VOC2012"
    palette = [channel for value in range(256) for channel in voc2012.colour(value)]
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for number in range(6):
        key, split = f"2007_{number:06d}", "val" if number > 3 else "train"
        lists[split].append(key)
        labels = np.zeros((12, 16), np.uint8)
        labels[2:6, 2:6], labels[7:11, 7:12], labels[1, 1:8] = 15, 11 + number, 255
        mask = Image.fromarray(labels)
        mask.putpalette(palette)
        save(folder / "JPEGImages" / f"{key}.jpg", photo(rng, (12, 16)))
        save(folder / "JPEGImages" / f"2008_{number:06d}.jpg", photo(rng, (12, 16)))
        path = folder / "SegmentationClass" / f"{key}.png"
        path.parent.mkdir(exist_ok=True)
        (mask.convert("RGB") if number == 5 else mask).save(path)
        for value, name in ((15, "person"), (11 + number, voc2012.NAMES[10 + number])):
            meant.add(key, f"{name}/{key}", labels == value, name)
    for split, keys in lists.items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(keys) + "\n")
    return meant


COPIES: dict[str, tuple[str, Callable[[Path, np.random.Generator], Meant]]] = {
    "kvasir": ("kvasir", kvasir),
    "clinicdb": ("clinicdb", clinicdb),
    "clinicdb with sequences": ("clinicdb", clinicdb_sequences),
    "bkai": ("bkai", bkai),
    "isic2016": ("isic2016", isic2016),
    "isic2016, part 3B": ("isic2016", isic2016_part3),
    "dfu2022": ("dfu2022", dfu2022),
    "busi": ("busi", busi),
    "camus": ("camus", camus),
    "camus, older": ("camus", camus_old),
    "chexlocalize": ("chexlocalize", chexlocalize),
    "cityscapes": ("cityscapes", cityscapes),
    "voc2012": ("voc2012", voc2012_set),
}
