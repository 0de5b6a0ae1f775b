"""Names, order and groups of data sets and combinations in tables and figures."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tunevlseg_jax.data import registry
from tunevlseg_jax.learners import PAPER
from tunevlseg_jax.reporting.cells import BASELINES, Key, RowKey

GROUPS = {
    "medical, not radiology": ("kvasir", "clinicdb", "bkai", "isic2016", "dfu2022"),
    "medical, radiology": ("camus", "busi", "chexlocalize"),
    "open domain": ("cityscapes", "voc2012"),
    "embedded": registry.SCENES,
}
"""The paper's data sets as it groups them (section 4.1), and our own."""
OTHERS = "other"
BEYOND = "beyond the paper"
NAMES = {
    "SharedSeparate": "Shared Separate",
    "SharedAttention": "Shared Attention",
    "VLSMAdapter": "VLSM-Adapter",
    "NormTuning": "Norm Tuning",
    "LinearProbe": "Linear Probe",
}
"""Combinations whose papers and pages write them in another way than their classes."""


def ordered(data: Iterable[str]) -> list[str]:
    """Data sets in the order of the tables: group by group, unknown ones last."""
    names = [name for members in GROUPS.values() for name in members]
    return sorted(data, key=lambda name: (names.index(name) if name in names else len(names), name))


def grouped(data: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Headers over ordered data sets, each with how many it spans; none where all are of one group."""
    of = {name: group for group, members in GROUPS.items() for name in members}
    counts = Counter(of.get(name, OTHERS) for name in data)
    return tuple(counts.items()) if len(counts) > 1 else ()


def group(combination: str) -> str:
    """The group of a combination: the baselines, the paper's learners, or those beyond the paper."""
    if combination in BASELINES:
        return "baselines"
    return "the paper" if combination in {learner.__name__ for learner in PAPER} else BEYOND


def shown(combination: str) -> str:
    """A combination as the paper writes it."""
    return NAMES.get(combination, combination)


def method(row: RowKey) -> str:
    """A method in words."""
    return ", ".join(filter(None, (row.model, shown(row.combination), row.ablation)))


def place(key: Key) -> str:
    """Where a cell is, in words."""
    return ", ".join(filter(None, (method(key.row), key.data)))
