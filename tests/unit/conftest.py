"""What holds for all unit tests: none plans for the GPU of the machine that runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rewarm.planning import gpu


@pytest.fixture(autouse=True)
def no_gpu_at_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gpu, "_DRIVER", "libnone.so.0")
    monkeypatch.setattr(gpu, "_torch_builds", lambda: (None, None))
    gpu._asked.cache_clear()
    yield
    gpu._asked.cache_clear()
