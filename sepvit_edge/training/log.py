"""What a training run shows: TensorBoard's log, and curves as a PNG."""

from __future__ import annotations

from pathlib import Path

from ..charts import load_pyplot
from ..files import replacing_file
from .state import Epoch

CURVES = "curves.png"
_LOG_STEPS = 20


class RunLog:
    """TensorBoard's log of a run, and its curves at the end.

    Parameters
    ----------
    run : Path
        Folder of the run.
    first, steps : int
        First step, counted from 0, and number of steps of the run. Later steps that an interrupted
        run has logged are dropped.
    """

    def __init__(self, run: Path, first: int, steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._run, self._steps = run, steps
        self._writer = SummaryWriter(str(run), purge_step=first)

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log a step, counted from 0; one in 20, and the last one."""
        if step % _LOG_STEPS == 0 or step + 1 == self._steps:
            self._writer.add_scalar("train/loss", loss, step)
            self._writer.add_scalar("train/learning_rate", learning_rate, step)

    def epoch(self, line: Epoch) -> None:
        """Log the end of an epoch."""
        if line.figure is not None:
            name, value = line.figure
            self._writer.add_scalar(f"validation/{name.replace('-', '')}", value, line.step - 1)
        self._writer.flush()

    def close(self, history: list[Epoch]) -> None:
        """Close the log and draw the curves."""
        self._writer.close()
        draw_curves(history, self._run / CURVES)


def draw_curves(history: list[Epoch], path: Path) -> None:
    """Draw loss and validation figure over epochs as a PNG."""
    plt = load_pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    epochs = [line.epoch for line in history]
    left.plot(epochs, [line.loss for line in history])
    left.set(xlabel="epoch", ylabel="training loss")
    known = [(line.epoch, *line.figure) for line in history if line.figure]
    name = known[0][1] if known else "top-1"
    if known:
        right.plot([e for e, _, _ in known], [100 * value for _, _, value in known])
    right.set(xlabel="epoch", ylabel=f"validation {name}, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with replacing_file(path) as partial:
        figure.savefig(partial, dpi=120)
    plt.close(figure)
