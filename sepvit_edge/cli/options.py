"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# More than any machine's cores; some runtimes start whatever they are told to.
MOST_THREADS = 1024

Classes = Annotated[
    str,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Label of each folder of the images, where folders are not named after labels: a JSON "
        'object {"folder": "label"}, or lines of a folder, a tab or comma, and a label.',
    ),
]

RequireSignature = Annotated[
    list[Path] | None,
    typer.Option(
        "--require-signature",
        metavar="KEYS",
        help="Refuse packages that none of these public keys (PEM) has signed; repeatable.",
    ),
]

Workers = Annotated[
    str,
    typer.Option(
        metavar="WORKERS",
        help="Share the images out by Ray: over N processes of this machine, or over the hosts of "
        "a cluster (HOST:PORT, ray://HOST:PORT or auto).",
    ),
]
