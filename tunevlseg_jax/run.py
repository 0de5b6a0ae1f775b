"""A run in Python: a trained run, or a model as it is, that predicts and evaluates, on arrays, files or sets."""

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.data import preprocessing, windows
from tunevlseg_jax.data.builders import arrays
from tunevlseg_jax.data.builders.arrays import ArrayDataset, check_prompts
from tunevlseg_jax.data.medical import inputs
from tunevlseg_jax.data.preprocessing import AS_THEY_ARE, Axis, Preprocessing
from tunevlseg_jax.data.registry import SCENES
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.evaluation import calibrate_run, evaluate_run, phrase_file, robustness
from tunevlseg_jax.evaluation.evaluate_run import EvaluationResult
from tunevlseg_jax.evaluation.robustness import RobustnessResult
from tunevlseg_jax.evaluation.settings import TOLERANCE, Resolution, check_threshold, check_tolerance
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.models.features import Candidates
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.sam3_instances import SCORE
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.prediction import forward, volume_answers
from tunevlseg_jax.prediction.forward import Predictor, Question
from tunevlseg_jax.prediction.instances import above_score
from tunevlseg_jax.prediction.questions import as_questions, read_images
from tunevlseg_jax.prediction.volume_answers import VolumeAnswer
from tunevlseg_jax.prompts import ModelSpec
from tunevlseg_jax.runs import provenance
from tunevlseg_jax.runs.card import CARD_FILE, add_to_card, temperature_of_card
from tunevlseg_jax.runs.locate import check_writable, find_run
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runs.run_folder import DATA_FOLDER
from tunevlseg_jax.runtime import exchange, multihost
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.precision import ComputeTypes

Image = np.ndarray | str | Path


class Run:
    """A trained run, or a model without learnt prompts, ready to predict.

    Attributes:
      config: its configuration.
      scores: from its card, by row ("zero-shot", "tuned"), split and metric; empty for a model.
      folder: the run's folder; None for a model.
      name: of the run, as it was loaded: its folder or its hub id; or of the model.
      preprocessing: how the files of its training set were read.
      predictor: its forward passes, for more images than fit into memory.
    """

    def __init__(
        self,
        experiment: Experiment,
        learnt: FlatParams,
        scores: Mapping[str, Any],
        folder: Path | None,
        preprocessing: Preprocessing,
        temperature: float = 1.0,
        name: str | None = None,
    ):
        self.config, self.scores, self.folder = experiment.config, dict(scores), folder
        self.name = name or experiment.config.model.checkpoint
        self.preprocessing = preprocessing
        self._experiment, self._learnt = experiment, learnt
        self.predictor = Predictor(experiment, learnt, temperature)

    @property
    def temperature(self) -> float:
        """Divides the logits in probabilities; 1 unless the run was calibrated. Masks don't depend on it."""
        return self.predictor.temperature

    @property
    def masks(self) -> Masks:
        """What its masks are: "semantic", or the union of "instances"."""
        return self._experiment.masks

    @property
    def computed(self) -> ComputeTypes:
        """The types of its computations, and why."""
        return self._experiment.computed

    @property
    def spec(self) -> ModelSpec:
        """The facts about the model that a learner needs."""
        return self._experiment.spec

    def zero_shot(self) -> "Run":
        """The model without what the run learnt, on the same weights in memory."""
        network, params = self._experiment.zero_shot()
        config = dataclasses.replace(self.config, learner=ZeroShot(), upsampling="none")
        model = dataclasses.replace(self._experiment, config=config, network=network, trainable={}, frozen=params)
        return Run(model, {}, {}, None, self.preprocessing)

    def __repr__(self) -> str:
        return f"<Run: {self.config.learner.name} in {self.name}>"

    def predict(
        self,
        image: Image | Sequence[Image],
        prompt: str | Sequence[str],
        *,
        threshold: float = 0.5,
        window: Window | None = None,
    ) -> Any:
        """Segments what a prompt names.

        Args:
          image: a (height, width), (height, width, 3) or (height, width, 4) array, or the path of a file, whose
            first frame is taken. Several images are a list, in which sizes may differ, or a (image, height, width, 3)
            array.
          prompt: the name of the object, such as "polyp". For several images: one for all, or one for each. For one
            image: one, or a list of them.
          threshold: probability above which a pixel belongs to the mask, between 0 and 1.
          window: (low, high), the values that become 0 and 255, or "percentile", of images of more than 8 bits. None
            for that of the training set; where it had none, for that of `windows.default` for all images of this call.

        Returns:
          A (height, width) bool mask at the image's size; a list of masks for several images or prompts.

        Raises:
          UserError: an image, a prompt or the threshold is invalid.
        """
        check_threshold(threshold)
        least = forward.logit(threshold)
        return self._answer(image, prompt, lambda logits, size: forward.enlarge(logits, size) > least, window)

    def probabilities(
        self, image: Image | Sequence[Image], prompt: str | Sequence[str], *, window: Window | None = None
    ) -> Any:
        """The probability that each pixel belongs to what a prompt names; arguments and errors as in `predict`.

        Returns:
          (height, width) float32 from 0 to 1 at the image's size; a list of them for several images or prompts.
        """
        answer = self.predictor.probability
        return self._answer(image, prompt, lambda logits, size: answer(forward.enlarge(logits, size)), window)

    def label_map(
        self,
        image: Image | Sequence[Image],
        prompts: Sequence[str],
        *,
        threshold: float = 0.5,
        window: Window | None = None,
    ) -> Any:
        """Asks for several objects at once, of which each pixel belongs to the likeliest.

        Args:
          image: as in `predict`.
          prompts: the names of the objects, at most 255; every image is asked for all of them.
          threshold: probability above which a pixel belongs to an object, between 0 and 1.
          window: as in `predict`.

        Returns:
          (height, width) uint8 at the image's size: n where the n-th prompt is the likeliest, counted from 1, and 0
          where no prompt is above the threshold; a list of them for several images.

        Raises:
          UserError: an image, a prompt or the threshold is invalid.
        """
        check_threshold(threshold)
        check_prompts(prompts)
        least, (images, is_list) = forward.logit(threshold), read_images(image, window or self.preprocessing.window)
        questions = (Question(one.shape[:2], one, range(len(prompts))) for one in images)
        answers = self.predictor.logits(questions, prompts)
        maps = [forward.best_label(logits, size, least) for size, logits in answers if logits is not None]
        return maps if is_list else maps[0]

    def candidates(
        self,
        image: Image | Sequence[Image],
        prompt: str | Sequence[str],
        *,
        least_score: float = SCORE,
        threshold: float = 0.5,
        window: Window | None = None,
    ) -> Any:
        """Finds the instances of what a prompt names, with a run or model that was loaded with `masks="instances"`.

        Args:
          image: as in `predict`.
          prompt: likewise.
          least_score: an instance has a higher score; 0 gives all that the model proposes. `predict` marks the union of
            those over 0.5.
          threshold: probability above which a pixel belongs to an instance, between 0 and 1.
          window: as in `predict`.

        Returns:
          `Instances`; a list of them for several images or prompts.

        Raises:
          UserError: the masks aren't those of instances, or an argument is invalid.
        """
        check_threshold(threshold)
        if not 0 <= least_score < 1:
            raise UserError(f"least_score must be at least 0 and below 1, got {least_score}", "out-of-range")
        questions, phrases, is_single = as_questions(image, prompt, window or self.preprocessing.window)
        found = []
        for _, pixels, asked in questions:
            candidates, presence = self.predictor.candidates(pixels, [phrases[index] for index in asked])
            for number in range(len(asked)):
                one = Candidates(*(array[number] for array in candidates))
                found.append(above_score(one, float(presence[number]), pixels.shape[:2], least_score, threshold))
        return found[0] if is_single else found

    def predict_volume(
        self,
        volume: Any,
        prompt: str | Sequence[str],
        *,
        threshold: float = 0.5,
        window: Window | None = None,
        axis: Axis | None = None,
    ) -> Any:
        """Segments what a prompt names in a volume, slice by slice.

        Args:
          volume: the path of a NIfTI, NRRD or MetaImage file, of a DICOM file or of a folder with one DICOM series or
            volume; the paths of a series' files; or a SimpleITK image.
          prompt: the name of the object; a list of them for several masks.
          threshold: probability above which a voxel belongs to the mask, between 0 and 1.
          window: (low, high), the values that become 0 and 255, "percentile", or "dicom" (the series' own). None for
            that of the training set; where it had none, "dicom", and percentiles of files without a window.
          axis: of the slices: "axial", "coronal" or "sagittal". None for that of the training set, or axial.

        Returns:
          A SimpleITK image of uint8 with exactly the volume's size, spacing, origin and direction: 1 in the object, 0
          elsewhere. A list of them for several prompts.

        Raises:
          UserError: the volume, a prompt, the threshold, the window or the axis is invalid, or SimpleITK isn't
            installed.
        """
        check_threshold(threshold)
        answers = self._volume(volume, prompt, axis, window, threshold, probabilities=False)
        masks = [answer.mask for answer in answers]
        return masks[0] if isinstance(prompt, str) else masks

    def volume_probabilities(
        self, volume: Any, prompt: str | Sequence[str], *, window: Window | None = None, axis: Axis | None = None
    ) -> Any:
        """The probability that each voxel belongs to what a prompt names; arguments and errors as in `predict_volume`.

        Returns:
          A SimpleITK image of float32 from 0 to 1 with the volume's geometry; a list of them for several prompts.
        """
        answers = self._volume(volume, prompt, axis, window, 0.5, probabilities=True)
        chances = [answer.probability for answer in answers]
        return chances[0] if isinstance(prompt, str) else chances

    def evaluate(
        self,
        data: str | Data | ArrayDataset | None = None,
        split: str = "test",
        *,
        resolution: Resolution = "model",
        ask_absent: bool = False,
        threshold: float = 0.5,
        tolerance: float = TOLERANCE,
        output: str | Path | None = None,
    ) -> dict[str, Any]:
        """Scores a split, as the command evaluate does.

        Args:
          data: name of a data set, its settings, or `records`; None for the run's training data set.
          split: train, val or test.
          resolution: "model" scores at the model's input size; "original" resizes the logits to each mask's size.
          ask_absent: whether to ask for every class of the split in every image.
          threshold: probability above which a pixel is marked, between 0 and 1.
          tolerance: of NSD, above 0: in millimetres where the spacing is known, else in pixels.
          output: folder for the files that the command writes; None writes none.

        Returns:
          The scores of the split by name, such as "dice" and "iou".

        Warns:
          UserWarning: the data set has changed since the run was trained on it, or its images trained the run.

        Raises:
          UserError: there is no such data set or split, or a prompt is too long.
        """
        with quiet():
            result = self.evaluation(
                data,
                split,
                resolution=resolution,
                ask_absent=ask_absent,
                threshold=threshold,
                tolerance=tolerance,
                output=output,
            )
        for line in provenance.lines(self.folder, split, result.marks):
            warnings.warn(line, stacklevel=2)
        return result.scores

    def evaluation(
        self,
        data: str | Data | ArrayDataset | None = None,
        split: str = "test",
        *,
        resolution: Resolution = "model",
        ask_absent: bool = False,
        threshold: float = 0.5,
        tolerance: float = TOLERANCE,
        output: str | Path | None = None,
    ) -> EvaluationResult:
        """As `evaluate`, with the scores of each class, and with a bar on a terminal."""
        check_threshold(threshold)
        check_tolerance(tolerance)
        with self._data(data) as chosen:
            chosen = chosen.for_scoring()
            marks = {}
            with multihost.sync_errors():
                scored = self._experiment.split(split, chosen, complete=ask_absent)
                if self.folder is not None:
                    comparable = not isinstance(data, ArrayDataset) and not (ask_absent and chosen.name in SCENES)
                    marks = provenance.marks(self.folder, self.data, chosen, scored.records, comparable=comparable)
            return evaluate_run.evaluate(
                self._experiment,
                self._learnt,
                scored,
                chosen,
                run=self.name,
                folder=None if output is None else Path(output),
                resolution=resolution,
                ask_absent=ask_absent,
                threshold=threshold,
                tolerance=tolerance,
                temperature=self.temperature,
                marks=marks,
                masks=self.masks,
            )

    def robustness(
        self,
        data: str | Data | ArrayDataset | None = None,
        split: str = "test",
        *,
        corrupt: bool = True,
        phrases: str | Path | None = None,
        output: str | Path | None = None,
    ) -> dict[str, RobustnessResult]:
        """Scores a split on corrupted images, and with paraphrases of its prompts: Dice at the model's size.

        Args:
          data: as in `evaluate`.
          split: likewise.
          corrupt: whether to score corrupted images, see `corruptions.KINDS`.
          phrases: a JSON file of paraphrases, see `phrase_file.read`; None for none.
          output: folder for the files that the command writes; None writes none.

        Returns:
          "corrupted" and "phrases", those that were asked for.

        Raises:
          UserError: there is no such data set or split, the file of paraphrases is broken, or one is too long.
        """
        self._check_semantic("robustness")
        with self._data(data) as chosen:
            chosen = chosen.for_scoring()
            with multihost.sync_errors():
                scored = self._experiment.split(split, chosen)
                asked = None if phrases is None else phrase_file.read(Path(phrases), scored.records.classes)
            return robustness.evaluate(
                self._experiment,
                self._learnt,
                scored,
                chosen,
                run=self.name,
                folder=None if output is None else Path(output),
                corrupt=corrupt,
                phrases=asked,
            )

    def calibrate(self) -> dict[str, Any]:
        """Fits the temperature on the run's validation split, keeps it in the card, and uses it from now on.

        Returns:
          What the card has under "calibration", see `calibrate_run.fit`.

        Raises:
          UserError: the validation split has changed since training, or this is a model without a card.
        """
        self._check_semantic("calibration")
        folder = self.folder
        if folder is None:
            raise UserError("only a run has a card for its temperature, and this is a model", "no-card")
        check_writable(self.name, "calibration")
        with multihost.sync_errors():
            data = self.data.for_scoring()
            split = self._experiment.split("val", data)
            if provenance.marks(folder, self.data, data, split.records).get("data_changed"):
                details = f"the val split of {data.name} has changed since training"
                raise UserError(f"{details}; prepare it as it was, or train again", "data-changed")
        fitted = calibrate_run.fit(self._experiment, self._learnt, split, data)
        exchange.from_primary(lambda: add_to_card(folder, {"calibration": fitted}))
        self.predictor = Predictor(self._experiment, self._learnt, fitted["temperature"])
        return fitted

    def _check_semantic(self, what: str) -> None:
        """Raises a UserError if the masks are those of instances."""
        if self.masks != "semantic":
            raise UserError(f"{what} needs semantic masks, got {self.masks}; load the run without masks", "masks-unfit")

    @property
    def data(self) -> Data:
        """The data set that the run was trained on; records kept in its folder are found there if the folder moved."""
        data = self.config.data
        if data.name == arrays.NAME and self.folder is not None and (self.folder / DATA_FOLDER / arrays.NAME).is_dir():
            return dataclasses.replace(data, root=str(self.folder / DATA_FOLDER))
        return data

    @contextlib.contextmanager
    def _data(self, data: str | Data | ArrayDataset | None) -> Iterator[Data]:
        """The settings of the data set to score; arrays are written to a temporary folder."""
        if isinstance(data, str):
            data = dataclasses.replace(self.config.data, name=data)
        if not isinstance(data, ArrayDataset):
            yield self.data if data is None else data
            return
        with tempfile.TemporaryDirectory() as folder:
            arrays.write(data, Path(folder))
            yield dataclasses.replace(arrays.settings(self.config.data, Path(folder)), cache=folder)

    def _volume(
        self,
        volume: Any,
        prompt: str | Sequence[str],
        axis: Axis | None,
        window: Window | None,
        threshold: float,
        *,
        probabilities: bool,
    ) -> Iterator[VolumeAnswer]:
        """The answer of a volume to each prompt."""
        prompts, window = check_prompts(prompt), windows.checked(window) or self.preprocessing.window
        self.predictor.check(prompts)
        scan = inputs.read_one(volume)
        return volume_answers.ask(
            scan,
            prompts,
            self.predictor,
            axis=scan.axis(preprocessing.checked_axis(axis) or self.preprocessing.axis),
            window=window,
            threshold=threshold,
            probabilities=probabilities,
        )

    def _answer(
        self,
        image: Any,
        prompt: str | Sequence[str],
        answer: Callable[[np.ndarray, Any], np.ndarray],
        window: Window | None,
    ) -> Any:
        """One answer for each image or prompt, from its logits at the model's size and the image's size."""
        questions, phrases, is_single = as_questions(image, prompt, window or self.preprocessing.window)
        found = self.predictor.logits(questions, phrases)
        answers = [answer(one, size) for size, logits in found if logits is not None for one in logits]
        return answers[0] if is_single else answers


def load_run(run: str | Path, *, checkpoint: str | None = None, masks: Masks = "semantic") -> Run:
    """Loads a trained run.

    Args:
      run: the run's folder, or any folder with its prompts.safetensors and card.json; or a hub id such as
        "owner/name", whose files are downloaded.
      checkpoint: the base model's new place, if it has moved since training.
      masks: "semantic", one mask for what a prompt names, as in training; or "instances", the union of the instances
        that a SAM 3 finds, with their presence. A temperature is one of semantic masks.

    Raises:
      UserError: a file is missing or broken, the base model isn't the one of the training, it finds no
        instances, or the hub has no such run.
    """
    folder = find_run(run)
    experiment, learnt = restore(folder, checkpoint, masks)
    path = folder / CARD_FILE
    card = read_object(path)
    scores = card.get("scores") or {}
    if not isinstance(scores, dict):
        raise UserError(f"{path}: scores must be an object, got {scores!r}", "bad-card")
    reading, temperature = preprocessing.of_card(card, str(path)), temperature_of_card(card, str(path))
    temperature = temperature if masks == "semantic" else 1.0
    return Run(experiment, learnt, scores, folder, reading, temperature, str(Path(run)))


def load_model(checkpoint: str | Path, *, masks: Masks = "semantic") -> Run:
    """Loads a model without learnt prompts, for zero-shot prediction.

    Args:
      checkpoint: a model folder, the name of an embedded model such as "clipseg-tiny", or a hub id.
      masks: as in `load_run`.

    Raises:
      UserError: there is no such model, or it finds no instances.
    """
    experiment = build_experiment(Config(model=Model(checkpoint=str(checkpoint))), trains=False, masks=masks)
    return Run(experiment, experiment.trainable, {}, None, AS_THEY_ARE)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Shows no bars."""
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
