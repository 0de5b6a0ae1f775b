"""The learning curve: test Dice against the number of training records of each class."""

from tunevlseg_jax.reporting.cells import Key
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.headings import ordered
from tunevlseg_jax.reporting.learning_curve import ALL, Curves

WIDEST = 0.3
"""How far the points of methods are spread beside their number, so that their intervals don't hide one another."""


@style.styled
def learning_curve(curves: Curves) -> Picture | None:
    """A panel for each data set with a line for each method; None where no runs differ in shots."""
    if not curves:
        return None
    numbers = {point.shots for rows in curves.values() for points in rows.values() for point in points}
    shots = sorted(numbers, key=lambda name: (name == ALL, 0 if name == ALL else int(name)))
    figure, axes = style.grid(len(curves), 3, 2.2, sharey=True)
    names = style.names(dict.fromkeys(row for rows in curves.values() for row in rows))
    handles, units = {}, []
    for ax, data in zip(axes, ordered(curves), strict=True):
        for place, (row, points) in enumerate(curves[data].items()):
            shift = WIDEST * (place / max(1, len(curves[data]) - 1) - 0.5)
            x = [shots.index(point.shots) + shift for point in points]
            handle = style.handle(row.combination, linestyle="-")
            handle.set_data(x, [point.dice for point in points])
            ax.add_line(handle)
            for at, point in zip(x, points, strict=True):
                if point.low is not None and point.high is not None:
                    ax.plot([at, at], [point.low, point.high], color=handle.get_color(), linewidth=0.8)
            handles[", ".join(filter(None, names[row]))] = handle
        known = {point.units for points in curves[data].values() for point in points if point.units}
        number = str(max(known)) if known else "unknown"
        units.append(f"{number} ({data})")
        ax.set_xticks(range(len(shots)), shots)
        ax.set_xlim(-0.5, len(shots) - 0.5)
        ax.autoscale(axis="y")
        style.headline(ax, data, f"n {number}")
    figure.supxlabel("training records of each class (data.shots)", fontsize=8)
    figure.supylabel("test Dice", fontsize=8)
    style.legend(figure, handles)
    caption = (
        "How test Dice grows with the number of training records: means over runs, with 95 % BCa bootstrap intervals"
        f" over test cases where there are evaluations. Independent test units: {', '.join(units)}."
    )
    cells = [Key(*row, data) for data, rows in curves.items() for row in rows]
    return Picture("learning_curve", "Learning curve", caption, figure, cells)
