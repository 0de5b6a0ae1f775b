"""Prints every claim that one method is better than another: `python -m tunevlseg_jax.report --claims`."""

from rich.console import Console

from tunevlseg_jax.reporting import claims, over_sets
from tunevlseg_jax.reporting.claims import Claim
from tunevlseg_jax.reporting.output import collect


def show(runs: str, console: Console) -> None:
    """Prints a line for each claim on the runs of a folder, and the number of pairs of which nothing can be said.

    Raises:
      UserError: there is no run.
    """
    compared = collect.collect(runs, 0).comparisons
    found, undecided = claims.claims(compared, over_sets.rank(compared))
    for claim in found:
        console.print(line(claim), soft_wrap=True, markup=False, highlight=False)
    if not any(each.pairs for each in compared):
        console.print(collect.UNPAIRED, soft_wrap=True, markup=False, highlight=False)
    console.print(f"{len(found)} claims; of {undecided} pairs of methods nothing can be said", highlight=False)


def line(claim: Claim) -> str:
    """A claim in one line, such as "data: A is better than B (Wilcoxon signed-rank, Holm: n = 40, p = 0.01)"."""
    risk = "" if claim.risk is None else f"; probability of false outperformance {claim.risk:.2g}"
    mixed = f". {claim.mixed}" if claim.mixed else ""
    return f"{claim.data}: {claim.text} ({claim.test}: n = {claim.n}, p = {claim.p:.2g}{risk}){mixed}"
