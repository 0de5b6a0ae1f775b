"""The options of `report`."""

from dataclasses import dataclass

PROGRAM = "python -m tunevlseg_jax.report"


@dataclass(frozen=True)
class Options:
    """What to report on, and where to.

    Attributes:
      runs: folder of runs and studies, at any depth.
      output: folder for the report; it must be empty, or hold an earlier one, which is replaced.
      words: how many of the nearest words to list for each learnt context vector; 0 for none, without loading models.
      samples: how many test records of each data set to show, in figures and on the page; 0 for none, without
        loading models and data.
      page: whether to draw figures and to write the page, for which `pip install "tunevlseg_jax[report]"` is needed.
      claims: whether to only print each claim that a method is better than another, with its test, n, p and risk.
      verify: whether to only compute every number of the page in `output` again from the records of the runs, and to
        say how many agree; the exit status isn't 0 if one differs.
    """

    runs: str
    output: str = "report"
    words: int = 3
    samples: int = 24
    page: bool = True
    claims: bool = False
    verify: bool = False
