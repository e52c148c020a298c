"""Before any test is read: torchvision, where it is, must be importable for transformers too."""

from __future__ import annotations

from tests.support.avalanche_peer import make_importable

make_importable()
