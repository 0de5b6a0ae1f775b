"""One call of predict: asks the model for the masks that aren't there yet, and writes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np

from tunevlseg_jax.data.images import read_bytes, write_png
from tunevlseg_jax.prediction import forward, frames
from tunevlseg_jax.prediction.exports import Export, Prediction
from tunevlseg_jax.prediction.forward import Predictor, logit
from tunevlseg_jax.prediction.frames import Frame, Opened
from tunevlseg_jax.prediction.measures import measure
from tunevlseg_jax.prediction.overlay import overlay
from tunevlseg_jax.prediction.planning import LABELS, MASK, Plan, Settings, at
from tunevlseg_jax.prediction.probability_files import write_probability
from tunevlseg_jax.prediction.table import Row, Table
from tunevlseg_jax.prediction.walk import LeftOut
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, sha256


class Work(NamedTuple):
    """A frame of a file, whose masks are asked for or known."""

    plan: Plan
    opened: Opened
    frame: Frame
    sha256: str


@dataclass
class Session:
    """The state of a call.

    Attributes:
      predictor: the model.
      settings: of the call.
      masks: the table of the masks, or this process's part of it.
      maps: the table of the label maps, likewise.
      exports: further output formats.
      left_out: files and frames that aren't predicted, with the reason.
      failures: of files that can't be read.
      kept: number of masks that an earlier call wrote.
      changed: number of masks that were replaced because their image has changed.
    """

    predictor: Predictor
    settings: Settings
    masks: Table
    maps: Table
    exports: Sequence[Export] = ()
    left_out: list[LeftOut] = field(default_factory=list)
    failures: list[UserError] = field(default_factory=list)
    kept: int = 0
    changed: int = 0

    def run(self, plans: Iterable[Plan]) -> Iterator[Row]:
        """Predicts and writes the masks of files; yields the row of each mask that is new."""
        for (work, logits), presence in self.predictor.answers(self._questions(plans), self.settings.prompts):
            if logits is None:
                self._keep(work)
            else:
                yield from self._write(work, logits, presence)
        for export in self.exports:
            export.close(self.settings.output)
        self.masks.close()
        self.maps.close()

    def _questions(self, plans: Iterable[Plan]) -> Iterator[forward.Question[Work]]:
        """The frames of all files; a file that can't be read doesn't stop the others."""
        for plan in plans:
            try:
                yield from self._frames(plan)
            except UserError as error:
                self.failures.append(error)

    def _frames(self, plan: Plan) -> Iterator[forward.Question[Work]]:
        path, take = plan.found.path, self.settings.frames
        data, digest = plan.data, ""
        if frames.is_video(path):
            with as_user_error(path):
                digest = sha256(path)
        else:
            data = read_bytes(path) if data is None else data
            digest = frames.digest(data, self.settings.window)
        opened = frames.open_file(path, data, self.settings.window)
        if take == "first" and opened.count > 1:
            self.left_out.append(LeftOut(path, f"frames 2 to {opened.count}: --frames all takes them"))
        if not self.exports and not opened.has_numbers(take) and self._is_done(plan, None, digest):
            self.kept += len(plan.masks)
            return
        every, last = range(len(plan.masks)), 0
        for frame in opened.frames(take):
            last = frame.number or 1
            done = self._is_done(plan, frame.number, digest)
            yield forward.Question(Work(plan, opened, frame, digest), frame.image, () if done else every)
        if take == "all" and last < opened.count:
            reason = f"frames {last + 1} to {opened.count}: the file ends before them, or its header counts too many"
            self.left_out.append(LeftOut(path, reason))

    def _is_done(self, plan: Plan, number: int | None, digest: str) -> bool:
        """Whether an earlier call wrote all masks of a frame as it is now."""
        output, formats = self.settings.output, set(self.settings.probabilities)
        for name in (at(mask, number) for mask in plan.masks):
            row = self.masks.get(name + MASK)
            if row is None or row["image_sha256"] != digest or not (output / (name + MASK)).is_file():
                return False
            if not formats <= set(row["probabilities"].split()):
                return False
        if plan.labels is None:
            return True
        name = at(plan.labels, number) + LABELS
        row = self.maps.get(name, "1")
        return row is not None and row["image_sha256"] == digest and (output / name).is_file()

    def _keep(self, work: Work) -> None:
        """Shows the exports the masks of an earlier call."""
        for prompt, mask_name in zip(self.settings.prompts, work.plan.masks, strict=True):
            name = at(mask_name, work.frame.number)
            stored = cv2.imread(str(self.settings.output / (name + MASK)), cv2.IMREAD_GRAYSCALE)
            if stored is None:
                raise UserError(f"can't decode {self.settings.output / (name + MASK)}; remove it", "undecodable")
            self._export(work, prompt, stored > 0, name, self.masks.get(name + MASK) or {})
            self.kept += 1

    def _write(self, work: Work, logits: np.ndarray, presence: np.ndarray | None) -> Iterator[Row]:
        """Writes the masks of a frame, and its label map; each is in its table before it is written."""
        size = (work.frame.image.shape[0], work.frame.image.shape[1])
        least = logit(self.settings.threshold)
        named = zip(self.settings.prompts, work.plan.masks, strict=True)
        for number, (prompt, mask_name) in enumerate(named):
            name, small = at(mask_name, work.frame.number), logits[number]
            large = forward.enlarge(small, size)
            mask = large > least
            row = self._about(work, prompt) | self._measured(work, mask)
            row |= {"mask": name + MASK, "probabilities": " ".join(self.settings.probabilities)}
            row |= {"presence": None if presence is None else float(presence[number])}
            self._remove(name + MASK)
            self.masks.add([row])
            for kind in self.settings.probabilities:
                write_probability(
                    self.settings.output / f"{name}_probability.{kind}", self.predictor.probability(large)
                )
            if work.frame.number is None or not work.opened.is_video:  # the overlays of a video are a video
                write_png(self.settings.output / f"{name}_overlay.png", overlay(work.frame.image, mask))
            write_png(self.settings.output / (name + MASK), mask.astype(np.uint8) * 255)
            self._export(work, prompt, mask, name, row)
            yield row
        if work.plan.labels is not None:
            self._write_labels(work, at(work.plan.labels, work.frame.number) + LABELS, logits, size)

    def _write_labels(self, work: Work, name: str, logits: np.ndarray, size: tuple[int, int]) -> None:
        labels = forward.best_label(logits, size, logit(self.settings.threshold))
        about = {"labels": name}
        rows = [
            self._about(work, prompt) | about | {"value": value} | self._measured(work, labels == value)
            for value, prompt in enumerate(self.settings.prompts, 1)
        ]
        self._remove(name, count=False)
        self.maps.add(rows)
        write_png(self.settings.output / name, labels)

    def _about(self, work: Work, prompt: str) -> Row:
        question = self.settings.question(prompt)._asdict()
        return question | {"image": work.plan.found.path, "frame": work.frame.number}

    def _measured(self, work: Work, mask: np.ndarray) -> Row:
        return measure(mask, work.frame.spacing or self.settings.spacing) | {"image_sha256": work.sha256}

    def _remove(self, name: str, *, count: bool = True) -> None:
        """Removes a mask of the image as it was, so that it never stands beside the row of the changed image."""
        path = self.settings.output / name
        if path.exists():
            self.changed += count
            with as_user_error(path):
                path.unlink()

    def _export(self, work: Work, prompt: str, mask: np.ndarray, name: str, row: Mapping[str, Any]) -> None:
        for export in self.exports:
            export.add(Prediction(work.opened, work.frame, prompt, mask, name, dict(row)))
