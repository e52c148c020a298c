"""The reference of a recipe's keys is what the schema says, and leaves none out."""

from __future__ import annotations

from pydantic import BaseModel

from rewarm.recipe.schema import Recipe
from rewarm.recipe.section import Section
from tools.recipe_reference import PAGE, page


def all_sections() -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    waiting: list[type[BaseModel]] = list(Section.__subclasses__())
    while waiting:
        model = waiting.pop()
        if model.__module__ == Recipe.__module__:
            found.add(model)
            waiting += model.__subclasses__()
    return found


def test_the_page_is_written_from_the_schema() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), "run: python tools/recipe_reference.py"


def test_every_key_of_every_section_is_described() -> None:
    text = page()
    for model in all_sections():
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert f"`{name}`" in text or f"{name}]" in text or f"{name}." in text
