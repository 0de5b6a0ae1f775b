"""Names of masks: an earlier mask of another image, prompt, threshold or run keeps its name."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tunevlseg_jax.prediction.walk import STDIN, Found

LONGEST = 40
"""Characters of a prompt in a file name."""
PASSING = (STDIN, "/dev/stdin", "/dev/fd/", "/proc/")
"""How the names of images begin that another image may have the next time."""


class Question(NamedTuple):
    """What a mask answers, beside its image; the values of the columns of the tables.

    Attributes:
      prompt: the prompt, or the prompts of a label map.
      threshold: probability above which a pixel belongs to the mask.
      run: folder of the run.
      run_sha256: fingerprint of the run.
    """

    prompt: str
    threshold: str
    run: str
    run_sha256: str

    def same(self, other: "Question") -> bool:
        """Whether both give the same mask, wherever the run's folder is."""
        return self._replace(run="") == other._replace(run="")

    def tags(self, other: "Question | None" = None) -> str:
        """The end of a name: what differs from `other`, or everything."""
        words = {
            "prompt": _slug(self.prompt),
            "threshold": f"threshold{self.threshold}",
            "run_sha256": _slug(Path(self.run).resolve().name),
        }
        shared = [] if other is None else [name for name in words if getattr(self, name) == getattr(other, name)]
        return "".join(f"_{word}" for name, word in words.items() if name not in shared)


class Owner(NamedTuple):
    """The image and the question of the mask that has a name."""

    image: str
    question: Question


class Names:
    """The names of a folder's masks."""

    def __init__(self, owners: Mapping[str, Owner], check: Callable[[str], None]):
        """
        Args:
          owners: of the names that are taken.
          check: raises a UserError if a file of another program has this name.
        """
        self._owners = {_same_file(name): owner for name, owner in owners.items()}
        self._known: dict[str, list[tuple[Question, str]]] = {}
        for name, owner in owners.items():
            self._known.setdefault(owner.image, []).append((owner.question, name))
        self._check = check

    def of(self, image: str, bases: Sequence[str], question: Question, *, tagged: bool) -> str:
        """The name of a mask: that of the same earlier mask, or a new one.

        Args:
          image: what identifies the image, see `image_key`.
          bases: names for the image, the best first.
          question: what the mask answers.
          tagged: whether the prompt is always in the name, as for several prompts at once.
        """
        for known, name in self._known.get(image, ()):
            if known.same(question):
                return name
        name = next(name for name in self._candidates(image, bases, question, tagged) if self._is_free(name))
        self._check(name)
        self._owners[_same_file(name)] = Owner(image, question)
        self._known.setdefault(image, []).append((question, name))
        return name

    def _candidates(self, image: str, bases: Sequence[str], question: Question, tagged: bool) -> Iterator[str]:
        base = bases[0]
        for base in bases:
            name = f"{base}_{_slug(question.prompt)}" if tagged else base
            yield name
            owner = self._owners[_same_file(name)]
            if owner.image == image:
                yield base + question.tags(owner.question if not tagged else owner.question._replace(prompt=""))
                yield base + question.tags()
                break
        for number in itertools.count(2):
            yield f"{base}{question.tags()}_{number}"

    def _is_free(self, name: str) -> bool:
        return _same_file(name) not in self._owners


def bases(found: Iterable[Found]) -> dict[Path, list[str]]:
    """The names for each image: without its ending, with it where two of a call collide, then with its folder."""
    found = list(found)
    counts = Counter(_same_file(one.name) for one in found)
    names = {}
    for one in found:
        whole = one.name + one.path.suffix
        folder = one.path.resolve().parent.name
        names[one.path] = [one.name, whole, f"{folder}/{one.name}", f"{folder}/{whole}"]
        if counts[_same_file(one.name)] > 1:
            names[one.path].pop(0)
    return names


def image_key(path: str, sha256: str) -> str:
    """What identifies an image: its place, and its content if it came through a pipe."""
    return f"{path} {sha256}" if is_passing(path) else str(Path(path).resolve())


def is_passing(path: str) -> bool:
    """Whether this is standard input or a pipe, which can be read once and is another image the next time."""
    return path == STDIN or path.startswith(PASSING[1:])


def _slug(text: str) -> str:
    """The text as a part of a file name."""
    return re.sub(r"[^\w.-]+", "-", text.strip())[:LONGEST].strip("-.") or "prompt"


def _same_file(name: str) -> str:
    """Equal for names that are one file on a file system that ignores case or the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()
