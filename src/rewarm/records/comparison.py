"""What was claimed of a comparison before it ran, and what came of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rewarm.records.curves import DomainCurve
from rewarm.records.facts import Record

__all__ = [
    "ArmKind",
    "Better",
    "ComparedArm",
    "ComparedRun",
    "ComparisonResult",
    "Direction",
    "Membership",
    "PairedEffect",
    "Primary",
    "RegisteredAgain",
    "Registration",
    "RunCurves",
    "Word",
]

RESULT_FORMAT = 1

Direction = Literal["lower", "higher", "equal", "not_higher", "not_lower"]
"""The last three hold up to a margin: `records.margins`."""
Better = Literal["lower", "higher"]
ArmKind = Literal["control", "arm", "noise floor"]
Word = Literal["as expected", "against expectation", "not resolved", "one seed", "not measured", ""]
"""What came of an expectation; empty where none was stated beforehand."""


class Primary(Record):
    """A metric named beforehand, and how an arm's is expected to lie against the control's."""

    metric: str
    expect: Direction
    within: float | None = Field(None, description="equal, not_higher, not_lower: the margin")


class RegisteredAgain(Record):
    """A later registration of an experiment, written when runs of the one before were known."""

    file_sha256: str = Field(description="of the experiment file's bytes")
    time: str = Field(description="UTC, ISO 8601")
    num_runs: int = Field(description="of the one before, known when this was written")
    changed: tuple[str, ...] = Field(description="claims that were others before, by their keys")


class Registration(Record):
    """The experiment as it was before its first run: `experiment.json`."""

    file_sha256: str = Field(description="of the experiment file's bytes")
    file_name: str
    time: str = Field(description="UTC, ISO 8601")
    before_runs: bool = Field(description="False: some run had begun when this was written")
    claims: dict[str, Any] = Field(
        description="hypothesis, primaries, contrasts, seeds, and what each arm is"
    )
    again: tuple[RegisteredAgain, ...] = Field(
        (), description="written down anew in another folder: file and time are the first one's"
    )


class ComparedArm(Record):
    """One arm: what it was given in every one of its runs."""

    name: str
    description: str
    kind: ArmKind
    num_tokens: int
    num_steps: int
    budget_differs: str | None = Field(
        description="why it was given another budget; None: it wasn't"
    )
    lr_area: float = Field(description="planned rate summed over all steps")
    exposure: dict[str, int] = Field(description="planned tokens by source")
    estimated_s: float = Field(description="of one run, as its plan estimates it")
    from_scratch: bool = Field(description="its weights are drawn anew, not the base's")
    pairing: str = Field(description="what a run of it shares with the control's of the same seed")


class ComparedRun(Record):
    """One arm with one seed."""

    arm: str
    seed: int
    order_seed: int = Field(description="of its data order: another one in the noise floor alone")
    state: Literal["done", "failed", "unfinished"]
    folder: str = Field(description="relative to the comparison's")
    fingerprint: str = Field(description="of its plan's science")
    values: dict[str, float] = Field(description="metrics by name; empty unless done")
    lr_area: float = Field(description="rate summed over the steps on record")
    exposure: dict[str, int] = Field(
        default_factory=dict, description="tokens by source of the steps on record"
    )
    amended: tuple[str, ...] = Field(
        (), description="what was changed of its plan while it went on, in words"
    )
    training_s: float = Field(description="seconds spent in steps")
    why: str = Field("", description="failed: its last lines")


class RunCurves(Record):
    """How one arm's figures moved with one seed."""

    arm: str
    seed: int
    curves: tuple[DomainCurve, ...]


class PairedEffect(Record):
    """One metric of an arm against another one, over the seeds that both of them finished."""

    metric: str
    unit: str
    better: Better
    arm: str
    against: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...] = Field(description="arm - against, by seed")
    mean: float | None = Field(description="None: no seed was measured of both")
    sd: float | None = Field(
        description="None for fewer than two seeds, as all that follows; 0: none beyond rounding"
    )
    low: float | None = Field(
        description="95 % t interval of the mean over seeds; None where there is no spread, too, "
        "and fewer than 6 seeds"
    )
    high: float | None
    p: float | None = Field(
        description="two-sided t test; where a margin is expected, one-sided ones at its ends; "
        "where there is no spread, the test of signs in its place"
    )
    p_holm: float | None = Field(description="adjusted for all primary tests; None: it is none")
    detectable: float | None = Field(
        description="smallest difference that so many seeds of this spread find with 80 % power at "
        "5 %; where a margin is expected, the smallest one within which they find no difference; "
        "None where there is no spread"
    )
    detectable_holm: float | None = Field(
        description="the same at 5 % shared by all primary tests, Holm's strictest step"
    )
    document_low: float | None = Field(
        None, description="one seed: 95 % bootstrap over documents of these very checkpoints"
    )
    document_high: float | None = None
    expect: Direction | None = Field(description="None: nothing was said of it beforehand")
    within: float | None
    word: Word
    sentence: str


class ComparisonResult(Record):
    """Everything that a comparison came to: `result.json`."""

    format: int = RESULT_FORMAT
    name: str
    hypothesis: str = Field(description="as it was written before the first run")
    primaries: tuple[Primary, ...]
    control: str
    noise_floor: str | None = Field(description="arm that repeats the control; None: none does")
    seeds: tuple[int, ...]
    registration: Registration
    arms: tuple[ComparedArm, ...]
    runs: tuple[ComparedRun, ...]
    curves: tuple[RunCurves, ...] = Field(
        (), description="of finished runs that begin from the control's base"
    )
    primary: tuple[PairedEffect, ...] = Field(description="the tests that Holm adjusts")
    secondary: tuple[PairedEffect, ...] = Field(description="everything else: exploratory")
    noise: tuple[PairedEffect, ...] = Field(description="the control's copy against the control")
    verdict: str
    notes: tuple[str, ...]
    provenance: dict[str, Any]

    def arm(self, name: str) -> ComparedArm:
        """Return an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def runs_of(self, arm: str) -> list[ComparedRun]:
        """Return an arm's runs in order of the seeds."""
        return [run for run in self.runs if run.arm == arm]

    def shown(self, arm: str) -> dict[str, float]:
        """Return the tokens by source that an arm's finished runs saw, the mean over seeds.

        Those that were planned where no run says what it saw.
        """
        seen = [run.exposure for run in self.runs_of(arm) if run.state == "done" and run.exposure]
        if not seen:
            return dict(self.arm(arm).exposure)
        names = dict.fromkeys(name for exposure in seen for name in exposure)
        return {name: sum(one.get(name, 0) for one in seen) / len(seen) for name in names}

    def lr_area(self, arm: str) -> float:
        """Return the rate summed over the steps of an arm's finished runs, the mean over seeds.

        The planned one where none is finished.
        """
        areas = [run.lr_area for run in self.runs_of(arm) if run.state == "done"]
        return sum(areas) / len(areas) if areas else self.arm(arm).lr_area

    def noise_of(self, metric: str) -> PairedEffect | None:
        """Return how the control's copy differed from the control in a metric."""
        return next((effect for effect in self.noise if effect.metric == metric), None)


class Membership(Record):
    """What a run is in a comparison, for its own report: `comparison.json` of the run.

    Written when the run is about to begin, and again with what came of the comparison.
    """

    name: str = Field(description="of the comparison")
    hypothesis: str
    arm: str
    description: str
    kind: ArmKind
    seed: int
    control: str = Field(description="the arm that the others are held against")
    page: str = Field(description="the comparison's page, relative to the run's folder")
    verdict: str = Field("", description="empty until the comparison is concluded")
    effects: tuple[PairedEffect, ...] = Field(
        (), description="the primary tests that this arm takes part in"
    )
    control_curves: tuple[DomainCurve, ...] = Field(
        (), description="of the control's run with this seed; none in the control's own"
    )
