"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Classes = Annotated[
    str,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Label of each folder of the images, where folders are not named after labels: a JSON "
        'object {"folder": "label"}, or lines of a folder, a tab or comma, and a label.',
    ),
]
