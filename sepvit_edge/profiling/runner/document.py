"""The document that the runner writes: its beginning, and the list of what it lacks."""

from __future__ import annotations

import argparse

from .manifest import GOLDEN, LABELS

VERSION = "2"  # of the runner
PROFILE_VERSION = "2.4"  # of the document


class Missing:
    """What the document lacks, with the reasons."""

    def __init__(self) -> None:
        self.items: list = []

    def note(self, what: str, reason: str) -> None:
        """Add one thing."""
        self.items.append({"what": what, "reason": reason})


def begin_document(options: argparse.Namespace, manifest: dict) -> dict:
    """Return the document as far as the options and the manifest tell it."""
    model = manifest["model"]
    own = (LABELS, GOLDEN)
    size = sum(file["size"] for file in manifest["files"] if file["path"] not in own)
    return {
        "schema_version": PROFILE_VERSION,
        "complete": False,
        "incomplete_reason": "the run did not end",
        "emulated": options.emulated,
        "producer": {"name": "runner", "version": VERSION},
        "package": {
            "digest": manifest["digest"],
            "variant": model["variant"],
            "target": manifest["target"],
            "precision": manifest["precision"],
            "image_size": model["image_size"],
            "num_classes": model["num_classes"],
            "batch": manifest["input"]["shape"][0],
            "model_mb": size / 1e6,
            "macs": model["macs"],
        },
        "runtime": {
            "name": manifest["runtime"]["name"],
            "version": "unknown",
            "execution": options.execution or "CPU",
            "threads": options.threads,
            "settings": {},
        },
    }
