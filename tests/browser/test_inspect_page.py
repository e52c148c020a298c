"""`rewarm inspect`'s page in a real browser: it fits, its figures can be read, no text acts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.cli import main
from tests.support.chromium import CHROMIUM, Page, open_page
from tests.support.looks import check_looks, read_by_keys, read_by_pointer
from tests.unit.test_inspect import EVIL_ID, make_inspected_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium (chromium or google-chrome) in PATH"
    ),
]

LOOKS = [(1200, False), (1200, True), (390, False), (390, True)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inspected_folder(tmp_path_factory.mktemp("inspect"))
    page = folder / "look.html"
    assert main(["inspect", str(folder / "recipe.toml"), "--page", str(page)]) == 0
    return page


@pytest.fixture
def page(file: Path, tmp_path: Path) -> Iterator[Page]:
    with open_page(tmp_path / "profile") as page:
        page.show_as(width=1200)
        page.go(file.as_uri())
        yield page
        assert page.complaints == []
        assert all(url.startswith(("file:", "data:")) for url in page.requests)


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_it_looks_as_it_should(page: Page, width: int, dark: bool) -> None:
    check_looks(page, width=width, dark=dark)


def test_its_histograms_can_be_read(page: Page) -> None:
    assert read_by_pointer(page, ".plot", 0.5)
    first = read_by_keys(page, ".plot", "Home")
    last = read_by_keys(page, ".plot", "End")
    assert first != last


def test_every_source_has_its_place(page: Page) -> None:
    names = page.ask(
        "[...document.querySelectorAll('main > section > h2')].map((h) => h.innerText)"
    )
    assert names == ["papers", "book", "talk"]
    page.ask("document.querySelectorAll('nav a')[2].click()")
    page.wait("location.hash === '#source-2'")
    assert page.ask("document.querySelectorAll('.window .strip i').length") > 0
    assert page.ask("document.querySelectorAll('.counted').length") > 0


def test_no_text_became_an_element(file: Path, page: Page, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.html"
    recipe = file.parent / "recipe.toml"
    only = ["papers", "--document", f"id:{EVIL_ID}", "--page", str(hostile)]
    assert main(["inspect", str(recipe), *only]) == 0
    page.go(hostile.as_uri())
    assert page.ask("document.querySelectorAll('img, .quote script').length") == 0
    assert "<script>alert(1)</script>" in page.ask("document.querySelector('main').innerText")
