"""The paper's claims: what any machine counts alike, and the verdicts; test_docs has the page."""

from __future__ import annotations

import copy

import claims_tables
from paper import complexity


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
