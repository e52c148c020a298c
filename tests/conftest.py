"""Fixtures that are dear enough to be made once; one thread, so that tests can run side by side."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch is imported: on busy cores several threads on tiny tensors mostly wait for another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell lets what it has in the background ignore interrupts, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

# What a busy machine takes for an example says nothing of the code.
settings.register_profile("any machine", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None)  # of tools/test_all.py
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_models import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("models") / "tiny-base")
