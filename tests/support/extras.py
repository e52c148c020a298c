"""Packages that come with an extra: without them its tests are skipped."""

from __future__ import annotations

import importlib.util

import pytest

__all__ = ["skip_without"]


def skip_without(*modules: str) -> None:
    """Skip the tests of a file where a module is not installed; none is imported."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed", allow_module_level=True)
