"""Finds the things that training may ask for although an image doesn't show them."""

import dataclasses

import numpy as np

from tunevlseg_jax.data.negatives import Negatives
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.runtime.errors import UserError


def with_negatives(records: Records, data: Data) -> Records:
    """The records with the negatives that the settings ask for.

    A class is absent from an image that has no record of it, in a set whose masks are complete. A class is not asked
    for if one of its phrasings also asks for something in the image.

    Args:
      records: a training split, of which few-shot training may have taken a part.
      data: settings of the data set.

    Raises:
      UserError: there is nothing absent to ask for, or a word for it is empty or one of the set's own.
    """
    words, rows = tuple(dict.fromkeys(data.negative_words)), _phrase_rows(records)
    own = {phrase.strip().lower() for phrase in (*records.classes, *records.phrases)}
    for word in words:
        if not word.strip():
            raise UserError("data.negative_words has an empty word; each must name a thing", "empty-prompt")
        if word.strip().lower() in own:
            raise UserError(
                f"data.negative_words has {word!r}, which {records.name} asks for with masks; "
                "give words for things that no image of it shows",
                "word-in-use",
            )
    complete = _complete(records, data)
    classes = ~(_shown(records) @ _sharing_phrases(records, rows)) & complete
    classes &= [len(of_class) > 0 for of_class in rows]  # few-shot training may lack some
    allowed = np.concatenate([classes, np.ones((len(classes), len(words)), bool)], axis=1)
    if not allowed[records.image].any():
        raise UserError(_nothing_absent(records, data), "nothing-absent")
    first = len(records.phrases)
    phrases = (*rows, *(np.asarray([first + number]) for number in range(len(words))))
    return dataclasses.replace(records, negatives=Negatives(data.negatives, words, allowed, phrases))


def _complete(records: Records, data: Data) -> np.ndarray:
    """(class,) bool, whether the images without a class's record don't show it."""
    if data.complete is None and records.complete is not None:
        return records.complete
    return np.full(len(records.classes), data.complete or False)


def _shown(records: Records) -> np.ndarray:
    """(image, class) bool, the classes that an image shows."""
    shown = np.zeros((len(records.names), len(records.classes)), bool)
    shown[records.image, records.label] = True
    return shown if records.shown is None else shown | records.shown


def _phrase_rows(records: Records) -> list[np.ndarray]:
    """For each class the rows of `records.phrases` of all its prompts."""
    ends = np.cumsum([len(phrasings) for phrasings in records.prompts])
    of_prompt = [np.arange(end - len(phrasings), end) for end, phrasings in zip(ends, records.prompts, strict=True)]
    prompts = (np.unique(records.prompt[records.label == label]) for label in range(len(records.classes)))
    return [np.concatenate([of_prompt[row] for row in rows]) if len(rows) else rows for rows in prompts]


def _sharing_phrases(records: Records, rows: list[np.ndarray]) -> np.ndarray:
    """(class, class) bool, whether two classes have a phrasing in common; letters' case doesn't count."""
    texts = [{records.phrases[row].strip().lower() for row in of_class} for of_class in rows]
    same = np.eye(len(texts), dtype=bool)
    return same | np.asarray([[bool(one & other) for other in texts] for one in texts], bool)


def _nothing_absent(records: Records, data: Data) -> str:
    """Why there is nothing absent to ask for, and what to do."""
    begin, names = f"data.negatives is {data.negatives:g}, but", ", ".join(map(repr, records.classes[:5]))
    words = "give words for things that no image shows, such as --data.negative-words kidney heart"
    if len(records.classes) == 1:
        return f"{begin} {records.name} has one class, {names}, in all its training images; {words}"
    if not _complete(records, data).all():
        complete = "if an image without a class's mask doesn't show the class, give --data.complete True; else"
        return f"{begin} {records.name} has separate masks, and may lack some of {names}; {complete} {words}"
    return f"{begin} every training image of {records.name} shows all its classes ({names}); {words}"
