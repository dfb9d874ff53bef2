"""Masks as COCO's files have them."""

from __future__ import annotations

import numpy as np


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Return COCO's uncompressed RLE of a mask: lengths of runs, by columns, zeros first.

    Parameters
    ----------
    mask : numpy.ndarray
        bool (H, W).

    Examples
    --------
    >>> run_lengths(np.array([[True, False], [True, True]]))
    {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    return {"size": list(mask.shape), "counts": counts}
