"""Independent units of a test set: scores are averaged over seeds, then within each patient, video or image."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from tunevlseg_jax.runtime.errors import UserError


def checked(scores: np.ndarray) -> np.ndarray:
    """The scores as float64.

    Raises:
      UserError: there is none, or one isn't finite.
    """
    scores = np.asarray(scores, np.float64)
    if not scores.size:
        raise UserError(f"scores must have at least one number, got the shape {scores.shape}", "bad-scores")
    if not np.isfinite(scores).all():
        place = tuple(int(number) for number in np.argwhere(~np.isfinite(scores))[0])
        raise UserError(f"scores must be finite, got {scores[place]} at the index {place}", "bad-scores")
    return scores


def over_seeds(scores: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Tells seeds apart from cases.

    Seeds are repetitions of training and cases are a sample of images. More seeds don't make more images, so the seeds
    of a case are averaged before anything is resampled.

    Args:
      scores: (seeds, cases).

    Returns:
      The mean over seeds of each case, (cases,), and the sample standard deviation over seeds of the mean over cases;
      None for one seed.

    Raises:
      UserError: a score isn't finite.
    """
    scores = checked(scores)
    return scores.mean(0), float(scores.mean(-1).std(ddof=1)) if len(scores) > 1 else None


def unit_means(scores: np.ndarray, groups: Sequence[Hashable] | None = None) -> np.ndarray:
    """The mean of each independent unit.

    Args:
      scores: (..., cases).
      groups: the patient, video or image of each case; None if each case is a unit.

    Returns:
      (..., units), in the order in which units first appear.

    Raises:
      UserError: a score isn't finite, or there are more or fewer groups than cases.
    """
    scores = checked(scores)
    if groups is None:
        return scores
    if len(groups) != scores.shape[-1]:
        raise UserError(
            f"groups must name the unit of each of {scores.shape[-1]} cases, got {len(groups)}", "bad-scores"
        )
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    members = np.zeros((len(groups), len(places)))
    members[np.arange(len(groups)), [places[group] for group in groups]] = 1
    return scores @ members / members.sum(0)


def matrix(scores: Mapping[str, Mapping[str, float]]) -> tuple[list[str], np.ndarray]:
    """Scores of several methods on the same cases.

    Args:
      scores: of each method, by the id of the case.

    Returns:
      The cases in sorted order, and the scores, (methods, cases).

    Raises:
      UserError: there is no method, a score isn't finite, or two methods have different cases.
    """
    if not scores:
        raise UserError("scores must be of at least one method, got none", "bad-scores")
    first, *others = scores
    for name in others:
        if differing := sorted(scores[first].keys() ^ scores[name].keys()):
            details = f"{len(differing)} are of one alone, such as {differing[0]}"
            raise UserError(f"{first} and {name} must be scored on the same cases; {details}", "different-cases")
    cases = sorted(scores[first])
    return cases, checked(np.array([[each[case] for case in cases] for each in scores.values()]))
