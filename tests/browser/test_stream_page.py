"""The page of a stream in a real browser: it fits, it is legible, and its script runs through."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewarm.cli import main
from tests.support.chromium import CHROMIUM, open_page
from tests.support.looks import check_looks
from tests.support.streams import EXPERIMENT, write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium (chromium or google-chrome) in PATH"
    ),
]


def test_the_page_of_a_stream_fits_and_its_script_runs_through(tmp_path: Path) -> None:
    write_images(tmp_path / "a.parquet")
    experiment = tmp_path / "e.toml"
    experiment.write_text(
        EXPERIMENT
        + 'er = { algorithm = "er" }\ntwo = { algorithm = "lwf", second_stage_epochs = 1 }\n'
    )
    assert main(["stream", str(experiment)]) == 0
    with open_page(tmp_path / "profile") as page:
        for width, dark in ((1200, False), (1200, True), (390, False), (390, True)):
            page.go((tmp_path / "streams/made-up/report.html").as_uri())
            check_looks(page, width=width, dark=dark)
        assert page.complaints == []
