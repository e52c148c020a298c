"""What accumulates while a plan is resolved: problems, reasons, warnings."""

from __future__ import annotations

from dataclasses import dataclass, field

from rewarm.errors import Problems
from rewarm.planning.plan import Reason

__all__ = ["CHAT_VECTOR", "GAP", "REUSE", "REWARM", "TEMPERATURE", "UNIMAX", "WSD", "Notes"]

REUSE = "Parmar et al. 2024, arXiv 2407.07263"
REWARM = "Ibrahim et al. 2024, arXiv 2403.08763"
GAP = "Guo et al. 2024, arXiv 2406.14833"
WSD = "Hägele et al. 2024, arXiv 2405.18392"
UNIMAX = "Chung et al. 2023, arXiv 2304.09151"
TEMPERATURE = "Conneau et al. 2020, arXiv 1911.02116"
CHAT_VECTOR = "Huang et al. 2024, arXiv 2310.04799"


@dataclass(slots=True)
class Notes:
    """Handed from room to room of the planning; each adds what it finds."""

    problems: Problems = field(default_factory=Problems)
    reasons: list[Reason] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def because(self, name: str, value: object, reason: str, source: str = "recipe") -> None:
        """Note why a field has its value, and where that comes from."""
        self.reasons.append(Reason(field=name, value=str(value), reason=reason, source=source))
