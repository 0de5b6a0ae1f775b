"""Mean test Dice against how many parameters train."""

import math
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean

import numpy as np
from safetensors import safe_open

from tunevlseg_jax.learners.base import DeepLearner
from tunevlseg_jax.reporting.cells import Key
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.headings import ordered, shown
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runs.card import LEARNT_FILE


def trained(run: Run) -> int:
    """The number of parameters that a run trained and uses; prompts beyond its depth aren't used."""
    starts = {f"learner/{start.replace('.', '/')}": part for start, part in run.config.learner.parts.items()}
    count = 0
    with safe_open(run.folder / LEARNT_FILE, "numpy") as file:
        for name in file.keys():  # noqa: SIM118 (no dict)
            shape = list(file.get_slice(name).get_shape())
            part = next((part for start, part in starts.items() if name.startswith(start)), None)
            if isinstance(part, DeepLearner) and shape and shape[0] == part.rows:
                depth, _ = part.traced_values()
                shape[0] = depth if isinstance(depth, int) else depth["vision" in name]
            count += math.prod(shape)
    return count


@style.styled
def parameters(chosen: Mapping[Key, Run], dice: Mapping[Key, float]) -> Picture | None:
    """A point for each model and combination that was trained on every data set; None where none was.

    Args:
      chosen: a run of each cell.
      dice: each cell's test Dice.
    """
    sets = ordered({key.data for key in dice})
    by_pair: dict[tuple[str, str], dict[str, Key]] = defaultdict(dict)
    for key in dice:
        if chosen[key].curve:
            by_pair[key.model, key.combination][key.data] = key
    whole = {pair: keys for pair, keys in by_pair.items() if len(keys) == len(sets)}
    if not whole:
        return None
    figure, (ax,) = style.grid(1, 1, 3.2)
    models = sorted({model for model, _ in whole})
    handles, counts = {}, []
    for (model, combination), keys in whole.items():
        counts.append(fmean(trained(chosen[key]) for key in keys.values()))
        hollow = {"markerfacecolor": "none"} if models.index(model) % 2 else {}
        handle = style.handle(combination, markersize=7, markeredgewidth=1.5, **hollow)
        handle.set_data([counts[-1]], [fmean(dice[key] for key in keys.values())])
        ax.add_line(handle)
        handles[f"{shown(combination)}, {model}" if len(models) > 1 else shown(combination)] = handle
    style.legend(figure, handles)
    ax.autoscale()
    ax.margins(y=0.15)
    style.logarithmic(ax)
    ax.set_xlim(10 ** np.floor(np.log10(min(counts))), 10 ** np.ceil(np.log10(max(counts) + 1)))
    ax.set(xlabel="parameters that train", ylabel="test Dice, mean over data sets")
    caption = (
        f"Means over {', '.join(sets)} of the runs that represent a cell of the tables, upsampler "
        "included. Of prompts with room for more blocks than the run's depth, those in use count."
    )
    if left := sorted({f"{shown(combination)} ({model})" for model, combination in by_pair.keys() - whole.keys()}):
        caption += f" Left out, since a data set is missing: {', '.join(left)}."
    return Picture(
        "parameters",
        "Dice against the number of parameters",
        caption,
        figure,
        [key for keys in whole.values() for key in keys.values()],
    )
