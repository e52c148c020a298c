"""Fixtures that are dear enough to be made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_models import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("models") / "tiny-base")
