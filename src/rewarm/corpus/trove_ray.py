"""datatrove's Ray executor; imported where it is asked for."""

from __future__ import annotations

from datatrove.executor.ray import RayPipelineExecutor

__all__ = ["RayExecutor"]


class RayExecutor(RayPipelineExecutor):  # type: ignore[misc]
    """Tasks hold what is no JSON."""

    def save_executor_as_json(self, indent: int = 4) -> None:
        """Leave it out."""
