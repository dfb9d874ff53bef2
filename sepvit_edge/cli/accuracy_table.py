"""The table of an accuracy report."""

from __future__ import annotations

from ..accuracy import AccuracyReport
from .console import console, print_columns, print_table

_MOST_CONFUSIONS = 10


def print_accuracy(report: AccuracyReport, title: str, images: str = "") -> None:
    """Print an accuracy report: the figures, the worst class first, the most frequent confusions.

    Parameters
    ----------
    report : AccuracyReport
        The report.
    title : str
        What was measured, for example the package.
    images : str
        Which images. Default: their number.
    """
    low, high = report.top1_interval
    rows = [("top-1", f"{report.top1:.2%} (95 % interval {low:.2%} to {high:.2%})")]
    if report.top5 is not None:
        rows.append(("top-5", f"{report.top5:.2%}"))
    rows.append(("calibration error", f"{report.calibration_error:.2%} (expected, 15 bins)"))
    print_table(title, [("images", images or f"{report.images}"), *rows])
    measured = [(one.right / one.images, one) for one in report.classes if one.images]
    measured.sort(key=lambda pair: (pair[0], pair[1].name))
    cells = [
        [one.name, f"{accuracy:.1%}", f"{one.right} of {one.images}"] for accuracy, one in measured
    ]
    print_columns(["class", "accuracy", "images"], cells)
    missing = [one.name for one in report.classes if not one.images]
    if missing:
        console.print(f"without images: {', '.join(missing)}", markup=False)
    confusions = report.confusions()
    for confusion in confusions[:_MOST_CONFUSIONS]:
        console.print(str(confusion), markup=False)
    further = len(confusions) - _MOST_CONFUSIONS
    if further > 0:
        console.print(f"and {further} other confusions, in --json", markup=False)
