"""The claims at the head of README.md: what was seen of each, and its verdict, from the results.

claims.toml says which primary tests a claim is called by, and which tests were named after earlier
runs had shown their answer; the words are the tests' own.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewarm.records.comparison import ComparisonResult, PairedEffect
from rewarm.reporting.effects import written

__all__ = ["CLAIMS", "NamedAfter", "claims_table", "named_after"]

CLAIMS = Path(__file__).resolve().parent / "claims.toml"
_PLACE = re.compile(r"\{([^{}]+)\}")
_NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class NamedAfter:
    """Primary tests that were added to an experiment after runs of it had shown their answer."""

    runs: str  # as in "two runs"
    what: str  # what the experiment's hypothesis says since
    tests: tuple[str, ...]

    @property
    def words(self) -> str:
        """What a reader must know of their verdicts."""
        return f"named after {self.runs} had shown it: a repeat on new bases, no prediction"

    def has(self, name: str, effect: PairedEffect) -> bool:
        """Whether a test of the experiment `name` is one of them."""
        return f"{name} {effect.arm} {effect.against} {effect.metric}" in self.tests


def named_after(path: Path, name: str) -> NamedAfter | None:
    """Return those tests of the experiment `name` that runs had shown, or None."""
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("named_after", []):
        if entry["experiment"] == name:
            tests = tuple(f"{name} {test}" for test in entry["tests"])
            return NamedAfter(entry["runs"], entry["what"], tests)
    return None


def claims_table(path: Path, results: Sequence[ComparisonResult]) -> str:
    """Return a row per claim, in Markdown: who claims it, what was seen, and the verdict.

    Raises ValueError for a test that its experiment does not have.
    """
    by_name = {result.name: result for result in results}
    rows = ["| of | claim | what was seen (bits per byte) | verdict |", "|---|---|---|---|"]
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["claims"]:
        verdict = _verdict([_test(by_name, named) for named in entry["tests"]])
        late = _late(path, entry["tests"]) if verdict != _NOT_RUN else ""
        seen = _PLACE.sub(lambda place: _difference(by_name, place[1]), entry["seen"])
        names = dict.fromkeys(named.split()[0] for named in entry["tests"])
        links = ", ".join(f"[{name}](#{name})" if name in by_name else name for name in names)
        seen = "" if verdict == _NOT_RUN else f"{seen[0].upper()}{seen[1:]}"
        rows.append(
            f"| {entry['of']} | {entry['claim']} | {seen} ({links}) | **{verdict}**{late} |"
        )
    return "\n".join(rows) + "\n"


def _test(by_name: Mapping[str, ComparisonResult], named: str) -> PairedEffect | None:
    """Return a primary test; None where its experiment has no result."""
    name, arm, against, metric = named.split()
    if name not in by_name:
        return None
    found = list(_effects(by_name[name].primary, arm, against, metric))
    if not found:
        raise ValueError(f"claims.toml: {name!r} has no primary test {arm} - {against}, {metric}")
    return found[0]


def _effects(
    effects: Sequence[PairedEffect], arm: str, against: str, metric: str
) -> Iterator[PairedEffect]:
    for effect in effects:
        if (effect.arm, effect.against, effect.metric) == (arm, against, metric):
            yield effect


def _verdict(tests: Sequence[PairedEffect | None]) -> str:
    """Return the word of all tests, or how many came to which."""
    words = [_NOT_RUN if test is None else test.word for test in tests]
    if len(set(words)) == 1:
        return words[0]
    return ", ".join(f"{number} of {len(words)} {word}" for word, number in Counter(words).items())


def _late(path: Path, tests: Sequence[str]) -> str:
    """Return what is to be said behind a verdict of tests whose answer runs had shown."""
    parts = []
    for name in dict.fromkeys(named.split()[0] for named in tests):
        late = named_after(path, name)
        number = sum(named in late.tests for named in tests) if late is not None else 0
        if late is not None and number:
            which = "" if number == len(tests) else f"{number} of {len(tests)}, of {name}, "
            parts.append(f"; {which}{late.words}")
    return "".join(parts)


def _difference(by_name: Mapping[str, ComparisonResult], place: str) -> str:
    """Return a mean difference, tested or not, with its direction in words."""
    is_share = place.endswith(" %")
    named = place.removesuffix(" %")
    name, arm, against, metric = named.split()
    if name not in by_name:
        return _NOT_RUN
    result = by_name[name]
    every = (*result.primary, *result.secondary)
    effect = next(_effects(every, arm, against, metric), None)
    if effect is None:
        raise ValueError(f"claims.toml: {name!r} has no {arm} - {against}, {metric}")
    if effect.mean is None:
        return _NOT_RUN
    direction = "lower" if effect.mean < 0 else "higher"
    if not is_share:
        return f"{written(abs(effect.mean), effect.unit)} {direction}"
    runs = result.runs_of(effect.against)
    values = [run.values[effect.metric] for run in runs if run.seed in effect.seeds]
    return f"{abs(effect.mean) / abs(sum(values) / len(values)):.0%} {direction}".replace("%", " %")
