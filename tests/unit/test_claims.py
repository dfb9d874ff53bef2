"""The paper's claims: what any machine counts alike, and the verdicts; test_docs has the page."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import claims_tables
import numpy as np
import peers
import peers_tables
import pictures
import pytest
import torch
from helpers import REPOSITORY
from interleaved import Timing
from paper import complexity
from torch import nn

from sepvit_edge.model.edge import FORMS
from sepvit_edge.profiling.runner.latency import time_in_turn


def test_macs_are_counted_again() -> None:
    found = claims_tables.read("complexity")
    for network, image in ((0, 0), (1, 4), (-1, 0)):
        kept = found["networks"][network]
        row = kept["rows"][image]
        where = kept["variant"], row["image_size"], kept["window"]
        macs, attention = complexity.counted(*where)
        assert (macs, attention) == (row["counted"], row["counted_attention"])
        parts = complexity.formula(*where)
        assert parts == {kind: row[kind] for kind in parts}
        assert sum(parts.values()) == macs and parts["dsa"] + parts["psa"] == attention


def test_a_claim_that_does_not_hold_is_told() -> None:
    found = claims_tables.read("complexity")
    assert [row[-1] for row in claims_tables.complexity_verdicts(found)] == ["yes"] * 3
    wrong = copy.deepcopy(found)
    wrong["networks"][2]["rows"][3]["formula"] += 1
    wrong["published"][4]["here"] += 1
    wrong["networks"][-1]["exponents"]["psa"] = 1.8
    assert [row[-1] for row in claims_tables.complexity_verdicts(wrong)] == ["**no**"] * 3


def jittered_structures(stage: int) -> dict[str, Any]:
    pytest.importorskip("timm")
    from paper.block import OURS, structures

    torch.manual_seed(stage)
    found = structures(stage)
    for name, structure in found.items():
        for parameter in structure.reference.parameters() if name != OURS else ():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return found


@pytest.mark.parametrize("form", ["rows-float", "xnnpack"])
@pytest.mark.parametrize("stage", [0, 2])
@torch.no_grad()
def test_structures_in_our_style_compute_the_same(stage: int, form: str) -> None:
    for name, structure in jittered_structures(stage).items():
        x = torch.randn(structure.shape)
        rows = x.flatten(0, -2)
        expected = structure.reference.eval()(x).flatten(0, -2)
        found = structure.in_our_style(FORMS[form])(rows)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max(), name
        assert (found - rows).abs().max() > 0.1, name  # not the residual alone


@torch.no_grad()
def test_a_stripe_is_what_loops_make_of_it() -> None:
    from paper.cswin import Stripes

    torch.manual_seed(0)
    stripes = Stripes(8, 2, 2, 6)  # two rows of a map of 6 x 6
    q, k, v = torch.randn(3, 1, 6, 6, 8)
    found = stripes(q, k, v)
    for top in (0, 2, 4):
        parts = [x[0, top : top + 2].reshape(12, 8) for x in (q, k, v)]
        position = stripes.lepe(v[:, top : top + 2].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for head in (0, 1):
            qh, kh, vh = (x[:, 4 * head : 4 * head + 4] for x in parts)
            y = (qh @ kh.T / 2).softmax(-1) @ vh
            expected = y.reshape(2, 6, 4) + position[0, ..., 4 * head : 4 * head + 4]
            part = found[0, top : top + 2, :, 4 * head : 4 * head + 4]
            assert torch.allclose(part, expected, atol=1e-6)


def test_macs_of_structures_are_counted_again() -> None:
    pytest.importorskip("timm")
    from paper.block import STAGES, count, structures

    rows = claims_tables.read("block")["rows"]
    for name, structure in structures(2).items():
        (kept,) = {r["macs"] for r in rows if (r["map"], r["structure"]) == (STAGES[2][0], name)}
        assert count(structure) == kept


@torch.no_grad()
def test_ablations_leave_out_what_they_say() -> None:
    from paper.ablations import ABLATIONS, FULL

    from sepvit_edge.checkpoints.choose import random_model
    from sepvit_edge.model.edge import EdgeModel

    model = random_model("lite-1-2-2-1", 10, 224)
    edges = {name: EdgeModel(model, 1, change(FORMS["rows"])) for name, change in ABLATIONS.items()}
    pixels = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    answers = {name: edge(pixels) for name, edge in edges.items()}
    for name, answer in answers.items():
        assert answer.shape == (1, 10) and answer.isfinite().all()
        assert name == FULL or not torch.equal(answer, answers[FULL])
    psa = {
        name: sum(block.psa is not None for _, block in edge.blocks())
        for name, edge in edges.items()
    }
    assert psa == {
        FULL: 4,
        "without CPE": 4,
        "without GSA": 5,
        "without learned tokens": 4,
        "without PSA": 0,
    }
    tokens = [block.dsa.window_tokens for _, block in edges["without learned tokens"].blocks()]
    assert tokens == [None] * 6
    sides = {block.windows.side for _, block in edges["without GSA"].blocks()}
    assert sides == {7}
    assert isinstance(edges["without CPE"].stages[0].cpe, nn.Identity)


@torch.no_grad()
def test_means_are_the_tokens_of_psa() -> None:
    from paper.ablations import MeanPSA

    from sepvit_edge.checkpoints.choose import random_model
    from sepvit_edge.model.edge.folding import fold
    from sepvit_edge.model.edge.rows import PSA

    block = fold(random_model("lite-1-1-1-1", 2, 32)).stages[2].blocks[0]
    means, learned = (
        kind(FORMS["rows"], block.psa, block.windows, batch=1) for kind in (MeanPSA, PSA)
    )
    pixels = torch.randn(4, 128)  # four windows of one pixel, whose mean it is
    assert torch.allclose(means(pixels), learned(pixels.repeat_interleave(2, 0)), atol=1e-6)


@pytest.mark.parametrize("name", pictures.drawn())
def test_pictures_are_current(name: str) -> None:
    assert pictures.is_current(name), "run python scripts/make_docs.py"


def test_a_picture_of_other_data_is_noticed(tmp_path: Path, monkeypatch: Any) -> None:
    name = pictures.drawn()[0]
    data, function = pictures.PICTURES[name]
    changed = tmp_path / "data.json"
    changed.write_bytes(data.read_bytes() + b"\n")
    monkeypatch.setitem(pictures.PICTURES, name, (changed, function))
    assert not pictures.is_current(name)


def test_peers_are_held_against_sepvit() -> None:
    found = peers_tables.read()
    for row in found["rows"]:
        if row["column"] == "openvino-bf16":
            row["over_ours"] = {"p50": 0.5 if row["model"] == "Swin-T" else 1.5, "p10": 0, "p90": 2}
    header, rows = peers_tables.speed_table(found)
    assert len(rows) == len(found["models"]) and {len(row) for row in rows} == {len(header)}
    _, standing = peers_tables.standing_table(found)
    assert ["OpenVINO bf16", "Swin-T", "none", "none"] in standing


def test_columns_that_are_not_measured_again_stay(tmp_path: Path) -> None:
    def document(column: str, ms: float, version: str = "1") -> dict[str, Any]:
        return {
            "machine": {"cpu": "x"},
            "versions": {"timm": version},
            "models": {},
            "columns": {column: {"command": f"{ms}"}},
            "rows": [{"column": column, "model": "y", "ms": ms}],
        }

    path = tmp_path / "peers.json"
    assert peers.with_others(document("openvino-fp32", 1), path) == document("openvino-fp32", 1)
    path.write_text(json.dumps(document("openvino-fp32", 1)))
    found = peers.with_others(document("executorch-fp32", 2), path)
    assert list(found["columns"]) == ["openvino-fp32", "executorch-fp32"]
    assert [row["ms"] for row in found["rows"]] == [1, 2]
    again = peers.with_others(document("openvino-fp32", 3), path)
    assert [row["ms"] for row in again["rows"]] == [3]
    other = document("executorch-fp32", 2, version="2")
    assert peers.with_others(other, path) == other


def test_ratios_are_of_processor_time() -> None:
    readings = iter(np.array([[0, 0], [4, 1], [4, 1], [5, 3], [5, 3], [7, 7], [7, 7], [9, 8]]))
    calls = {"a": lambda: None, "b": lambda: None}
    times = time_in_turn(calls, 2, clock=lambda: next(readings))  # a b, b a
    timing = Timing([times], [], [0.5])
    assert timing.milliseconds("a") == 3000
    ratio = timing.ratio("a", "b")  # 1 / 2 and 1 / 4; on the clock 4 and 1
    assert (ratio["p50"], ratio["clock_p50"]) == (0.375, 2.5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("claims.py", "block", "--runtime", "openvin"), "did you mean 'openvino'"),
        (("claims.py", "ablations", "--variant", "x"), "unknown variant 'x'"),
        (("claims.py", "scaling", "--output", "none/x.json"), "the folder .* does not exist"),
        (("peers.py", "--column", "openvino-int4"), "did you mean 'openvino-int8'"),
    ],
)
def test_wrong_options_are_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    script = str(REPOSITORY / "benchmarks" / words[0])
    done = subprocess.run([sys.executable, script, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(f"error: .*{sentence}.*\n", done.stderr), done.stderr
