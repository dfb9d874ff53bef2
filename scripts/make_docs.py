"""Fill the generated parts of README.md and docs/, and draw: `python scripts/make_docs.py`.

A part stands between `<!-- generated: NAME [ARGUMENT] -->` and `<!-- end -->`; the text between
them is replaced. tests/unit/test_docs.py fails if a part is not current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import claims_tables
import peers_tables
import pictures
import typer

from sepvit_edge.__main__ import application
from sepvit_edge.backends.registry import RUNTIMES, host_targets
from sepvit_edge.config.recipe import PRECISIONS, load_recipe, recipes
from sepvit_edge.package.verification import LEVELS
from sepvit_edge.profiling.results import load_folder, markdown_table

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
PART = re.compile(r"(<!-- generated: ([^>]+) -->\n).*?(<!-- end -->)", re.S)
# How packages for the runtimes of a PC are checked; those of NPUs are in the data.
ON_A_PC = {
    "coreml": "evaluated",
    "executorch": "run",
    "litert": "run",
    "onnxruntime": "run",
    "openvino": "run",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["-"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def verified(target: str = "") -> list[dict[str, Any]]:
    """Return the facts of the verified NPU packages, of one target or of all.

    `python -m sepvit_edge.cli.verification_table PACKAGE...` prints them.
    """
    facts = json.loads((DOCS / "data" / "verification.json").read_bytes())
    return [each for each in facts if target in ("", each["target"])]


def purpose(target: str) -> str:
    """Return what a target is for: the first sentence of its page."""
    text = (DOCS / "targets" / f"{target}.md").read_text("utf-8")
    return text.split("\n\n")[1].partition(". ")[0].rstrip(".")


def targets(folder: str) -> str:
    """Compare the targets; the folder, with its slash, leads to their pages."""
    rows = []
    for target, runtime in sorted(
        RUNTIMES.items(), key=lambda item: (item[0] not in host_targets(), item[0])
    ):
        own = {load_recipe(path).precision for path in recipes().values() if of(path, target)}
        levels = {each["verification"] for each in verified(target)} or {ON_A_PC[target]}
        rows.append(
            [
                f"[`{target}`]({folder}{target}.md)",
                purpose(target),
                ", ".join(name for name in PRECISIONS if name in own),
                ", ".join(name for name in LEVELS if name in levels),
                f"{runtime.distribution} {runtime.minimum} to below {runtime.below}",
            ]
        )
    return table(("target", "for", "precisions", "verified", "library"), rows)


def of(recipe: Path, target: str) -> bool:
    """Tell whether a recipe is for a target."""
    return load_recipe(recipe).target == target


def recipe_table(target: str) -> str:
    """List the recipes of a target."""
    rows = [
        [f"`{name}`", load_recipe(path).precision, load_recipe(path).description]
        for name, path in sorted(recipes().items())
        if of(path, target)
    ]
    return table(("recipe", "precision", "what it makes"), rows)


def verification(target: str = "") -> str:
    """Tell how packages for NPUs were verified."""
    rows = []
    for facts in verified(target):
        parity, outside = facts["parity"], facts["outside"]
        distances = ["-"] * 5
        if parity is not None:
            ratios = [parity[key] for key in ("sqnr_db", "sqnr_quantized_db", "sqnr_cpu_db")]
            distances = [
                f"{parity['images']} {parity['data']}",
                *("-" if ratio is None else f"{ratio:.1f}" for ratio in ratios),
                f"{parity['top1_agreement']:.1%}",
            ]
        placed = ["not known"] * 2
        if outside is not None:
            placed = [str(outside), f"{facts['macs_inside']:.1%}"]
        name = f"{facts['model']}, {facts['image_size']} px, {facts['precision']}"
        size = f"{facts['megabytes']:.1f}"
        level = facts["verification"]
        rows.append([facts["target"], facts["device"], name, size, level, *distances, *placed])
    header = (
        *("target", "device", "model", "MB", "verification", "images", "fp32", "int8", "CPU"),
        *("top-1 agreement", "operations outside", "MACs inside"),
    )
    cut = 1 if target else 0
    return table(header[cut:], [row[cut:] for row in rows])


def estimates(target: str = "") -> str:
    """List what compilers expect of the devices."""
    rows = [
        [
            each["target"],
            f"{each['model']}, {each['image_size']} px, {each['precision']}",
            estimate["what"],
            f"{estimate['value']:.4g} {estimate['unit']}",
            estimate["source"],
        ]
        for each in verified(target)
        for estimate in each["estimates"]
    ]
    return table(("target", "model", "what", "estimate", "by"), rows)


def versions(_: str) -> str:
    """List the versions that made the verified packages."""
    found: dict[str, list[str]] = {}
    for each in verified():
        text = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
        if each["target"] not in found.setdefault(text, []):
            found[text].append(each["target"])
    return "".join(f"- {', '.join(names)}: {text}\n" for text, names in found.items())


def proofs(_: str) -> str:
    """Explain the levels of verification."""
    rows = [[name, level.proof] for name, level in LEVELS.items()]
    return table(("verification", "what it proves, and what it leaves open"), rows)


def latency(runtime: str = "") -> str:
    """Print the kept measurements, of one runtime or of all."""
    found = load_folder(REPOSITORY / "profiles" / "results")
    return markdown_table([one for one in found if runtime in ("", one.runtime.name)]) + "\n"


def claims(name: str = "") -> str:
    """Print the verdicts on the paper's claims, or one of the tables that they rest on."""
    if not name:
        return table(*claims_tables.verdicts())
    source, rows = claims_tables.TABLES[name]
    found = claims_tables.read(source)
    return f"{claims_tables.made_by(found)}\n{table(*rows(found))}"


def peers(name: str) -> str:
    """Print one of the tables of SepViT-T beside its peers."""
    found = peers_tables.read()
    rows = table(*peers_tables.TABLES[name](found))
    return f"{peers_tables.introduction(found)}\n{rows}" if name == "speed" else rows


def instructions(_: str) -> str:
    """Tabulate the kept counts: each recipe of Lite, and the model exported as it stands."""
    kept = json.loads((DOCS / "data" / "instructions.json").read_bytes())["counts"]
    rows = []
    for recipe, found in kept.items():
        naive = found.get("naive")
        told = ["-", "-"]
        if naive is not None:
            told = [f"{naive / 1e6:.2f}", f"{naive / found['edge']:.2f}"]
        rows.append([f"`{recipe}`", found["runtime"], f"{found['edge'] / 1e6:.2f}", *told])
    return table(("recipe", "runtime", "edge form", "as it stands", "ratio"), rows)


def commands(_: str) -> str:
    """Describe every command as its --help does."""
    group: Any = typer.main.get_command(application())
    parts = []
    for name, command in group.commands.items():
        parts += [f"## {name}\n", command.help + "\n"]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        words = [f"{p.name.upper()}{'...' * (p.nargs == -1)}" for p in arguments]
        words = [w if p.required else f"[{w}]" for w, p in zip(words, arguments, strict=True)]
        parts.append(f"```text\n{' '.join(['sepvit-edge', name, '[OPTIONS]', *words])}\n```\n")
        parts.append(table(("option", "what it does", "default"), map(_parameter, command.params)))
    return "\n".join(parts)


def _parameter(parameter: Any) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    elif parameter.metavar:
        names += f" {parameter.metavar}"
    default = parameter.default
    shown = "" if default in (None, "", False, [], ()) or callable(default) else f"`{default}`"
    if parameter.param_type_name == "option" and parameter.count:
        shown = ""
    meaning = (parameter.help or "").replace("|", "\\|").replace("<", "&lt;")
    return [names, f"{meaning}{' Required.' * parameter.required}", shown]


PARTS: dict[str, Callable[[str], str]] = {
    "targets": targets,
    "recipes": recipe_table,
    "verification": verification,
    "proofs": proofs,
    "estimates": estimates,
    "versions": versions,
    "latency": latency,
    "claims": claims,
    "peers": peers,
    "instructions": instructions,
    "commands": commands,
}


def filled(text: str) -> str:
    """Return a page with its generated parts made anew."""

    def fill(match: re.Match[str]) -> str:
        name, _, argument = match[2].partition(" ")
        return f"{match[1]}\n{PARTS[name](argument)}\n{match[3]}"

    return PART.sub(fill, text)


def pages() -> list[Path]:
    """Return the pages that may have generated parts."""
    return [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]


if __name__ == "__main__":
    for page in pages():
        before = page.read_text("utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, "utf-8")
            print(f"{page.relative_to(REPOSITORY)} is written")
    for name in pictures.drawn():
        if not pictures.is_current(name):
            print(f"{pictures.draw(name).relative_to(REPOSITORY)} is drawn")
