"""The page of the streams' results is what the results say."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "reproduction"))

import stream_suite  # noqa: E402
import stream_table  # noqa: E402


def test_the_page_is_what_the_committed_results_give() -> None:
    page = stream_table.PAGE.read_text(encoding="utf-8")
    results = stream_table.read_results(stream_table.RESULTS, stream_suite.EVERY)
    assert stream_table.page_with(page, results, stream_table.RESULTS) == page
    for result in results:
        for name, svg in stream_table.figures_of(result):
            assert (stream_table.RESULTS / name).read_text(encoding="utf-8") == svg
