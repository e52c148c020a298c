"""The page of known bases is what the table says, and leaves none out."""

from __future__ import annotations

from rewarm.planning.known_bases import KNOWN_BASES
from tools.bases_reference import PAGE, page


def test_the_page_is_written_from_the_table() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), "run: python tools/bases_reference.py"


def test_every_base_its_data_and_its_documents_are_on_the_page() -> None:
    text = page()
    for base in KNOWN_BASES:
        assert f"| {base.name} (`" in text
        assert all(f"`{hub_id}`" in text for hub_id in (*base.hub_ids, *base.data.hub_ids))
        for fact in (base.peak_lr, base.final_lr, base.tokens, base.weight_decay):
            assert fact is None or f". {fact.source}\n" in text
