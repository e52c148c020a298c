"""`rewarm inspect`: sources, documents, rejects, scores and windows, as text, a page, or JSON."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console

from rewarm.artifacts import canonical_json
from rewarm.corpus.bins import load_packing
from rewarm.corpus.looks import ShownWindow, SourceLook
from rewarm.corpus.packed import PackedView, open_windows
from rewarm.corpus.reject_log import counted_rejects, read_rejects
from rewarm.corpus.spelling import Speller, open_speller
from rewarm.corpus.views import View, open_view
from rewarm.errors import CorpusError, Problems
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import WAYS, Packing
from rewarm.reporting.inspection import Inspection, Inspections, as_json
from rewarm.stages.inspect_target import Target, chosen_sources, open_target
from rewarm.stages.inspect_windows import Picked, picked_windows

__all__ = ["InspectRequest", "run_inspect"]

_NUMBER = 3
_SAMPLE_TOKENS, _DOCUMENT_TOKENS, _SPAN_TOKENS = 120, 2_000, 32
_PAGE_NUMBER, _PAGE_TOKENS = 6, 400


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """What a person asked to see; what is left out is None, False or empty."""

    source: str | None = None
    document: str | None = None
    rejects: bool = False
    reason: str | None = None
    scores: bool = False
    windows: bool = False
    window: int | None = None
    phase: str | None = None
    length: int | None = None
    packing: str | None = None
    held_out: bool = False
    number: int | None = None
    tokens: int | None = None
    seed: int = 0
    tokenizer: Path | None = None
    page: Path | None = None
    as_json: bool = False

    @property
    def wants_rejects(self) -> bool:
        """Whether rejected documents are asked for."""
        return self.rejects or self.reason is not None

    @property
    def wants_windows(self) -> bool:
        """Whether windows are asked for."""
        return self.windows or self.window is not None or self.phase is not None

    @property
    def is_open(self) -> bool:
        """Whether nothing was asked for in particular."""
        asked = (self.document is not None, self.wants_rejects, self.scores, self.wants_windows)
        return not any(asked)


def run_inspect(path: Path, overrides: Iterable[str], request: InspectRequest) -> None:
    """Show what was asked for of a recipe's sources, a run's, or a prepared folder's.

    Raises UserError for whatever is asked for and is not there.
    """
    _check(request)
    target = open_target(path, overrides)
    names = chosen_sources(target, request.source)
    if request.document is not None and len(names) != 1:
        raise CorpusError.one(
            "--document",
            "it is of one source, and none is named",
            f"name the source: {', '.join(names)}",
        )
    found = _inspected(target, names, request)
    if request.page is not None:
        from rewarm.reporting.inspect_page import write_inspection_page

        write_inspection_page(request.page, found)
        sys.stdout.write(f"page: {request.page}\n")
    elif request.as_json:
        sys.stdout.write(canonical_json(as_json(found)) + "\n")
    else:
        _print(found, target, path, request)


def _check(request: InspectRequest) -> None:
    problems = Problems()
    if request.packing is not None and request.packing not in get_args(Packing):
        near = difflib.get_close_matches(request.packing, WAYS, n=1, cutoff=0.3)
        problems.add(
            "--packing",
            f"{request.packing!r} is no way of packing",
            f"did you mean {near[0]!r}?" if near else f"use {' or '.join(WAYS)}",
        )
    if request.page is not None and request.as_json:
        problems.add("--json", "it does not go with --page", "ask for one of the two")
    if request.held_out and (request.scores or request.wants_windows):
        problems.add(
            "--held-out",
            "held-out documents have no scores, and no windows that are trained on",
            "leave one of them out",
        )
    problems.raise_as(CorpusError)


def _inspected(target: Target, names: Sequence[str], request: InspectRequest) -> Inspections:
    corpora = [target.corpora[name] for name in names if name in target.corpora]
    speller = _speller(target, corpora, request)
    sources = [_Looking(target, request, speller).at(name) for name in names]
    for name, folder in target.unprepared.items():
        if (request.source is None or name in names) and name not in {s.name for s in sources}:
            sources.append(_of_rejects(name, folder, None, request))
    notes = []
    if request.source is None:
        notes = [
            problem.brief
            for name, error in target.missing.items()
            if name not in target.unprepared
            for problem in error.problems
        ]
    return Inspections(target.title, tuple(sources), tuple(notes), overview=request.source is None)


def _speller(
    target: Target, corpora: Sequence[CorpusFacts], request: InspectRequest
) -> Speller | None:
    """Return the tokenizer, where text is to be shown; None where none is known and none needed."""
    folder = request.tokenizer or target.tokenizer_folder
    if folder is not None:
        return open_speller(folder, list(corpora)) if corpora else None
    if request.document is not None or request.wants_windows:
        raise CorpusError.one(
            "--tokenizer",
            "the prepared folder's base is not where it was, so its tokens cannot be read as text",
            "name the folder that has the base's tokenizer.json",
        )
    return None


def _of_rejects(
    name: str, folder: Path, facts: CorpusFacts | None, request: InspectRequest
) -> Inspection:
    """Return what a source rejected, with some of it; raises CorpusError for an unknown reason."""
    rejected = counted_rejects(folder, facts)
    most = request.number or (_PAGE_NUMBER if request.page else _NUMBER)
    examples = request.wants_rejects or request.page is not None or facts is None
    rejects = read_rejects(folder, most=most, reason=request.reason) if examples else []
    if request.reason is not None and request.reason not in rejected and not rejects:
        near = difflib.get_close_matches(request.reason, rejected, n=1, cutoff=0.4)
        known = f"its reasons are {', '.join(sorted(rejected))}" if rejected else "leave it out"
        raise CorpusError.one(
            "--reason",
            f"source {name!r} rejected nothing as {request.reason!r}",
            f"did you mean {near[0]!r}?" if near else known,
        )
    return Inspection(name=name, facts=facts, rejected=rejected, rejects=tuple(rejects))


@dataclass(frozen=True, slots=True)
class _Looking:
    """Looks at sources of one target, as one request wants it."""

    target: Target
    request: InspectRequest
    speller: Speller | None

    def at(self, name: str) -> Inspection:
        """Return what was asked for of a source; raises UserError."""
        request = self.request
        if name not in self.target.corpora:
            folder = self.target.unprepared.get(name)
            others = request.document is not None or request.scores or request.wants_windows
            if folder is None or request.held_out or others:
                raise self.target.missing[name]
            return _of_rejects(name, folder, None, request)
        facts = self.target.corpora[name]
        look = self._look(facts)
        everything = request.page is not None
        histograms = [*look.scored()] if request.scores or everything or request.is_open else []
        if request.is_open or everything:
            histograms = [look.lengths(), look.density(), *histograms]
        has_rejects = request.is_open or request.wants_rejects or everything
        shown = _of_rejects(name, Path(facts.folder), facts, request) if has_rejects else None
        windows, said = self._windows(look)
        documents = self._documents(look)
        return Inspection(
            name=name,
            facts=facts,
            held_out=request.held_out,
            histograms=tuple(histograms),
            documents=tuple(look.document(number, tokens) for number, tokens in documents),
            is_sample=request.document is None,
            examples=tuple(
                (which, look.document(number, self._tokens(_SAMPLE_TOKENS)))
                for which, number in (_by_score(look) if request.scores or everything else [])
            ),
            rejected=None if shown is None or request.held_out else shown.rejected,
            rejects=() if shown is None or request.held_out else shown.rejects,
            windows=windows,
            windows_said=said,
        )

    def _look(self, facts: CorpusFacts) -> SourceLook:
        request = self.request
        look = SourceLook(facts, held_out=request.held_out, speller=self.speller)
        if request.scores and not look.score_sets and request.source is not None:
            raise CorpusError.one(
                "--scores",
                f"the documents of source {facts.name!r} are not scored",
                "scores are made where the recipe keeps the best of a source (keep = …), by "
                "`rewarm prepare`",
            )
        return look

    def _tokens(self, usual: int) -> int:
        request = self.request
        return request.tokens or (_PAGE_TOKENS if request.page is not None else usual)

    def _documents(self, look: SourceLook) -> list[tuple[int, int]]:
        """Return which documents to show, and up to how many tokens of each."""
        request = self.request
        if request.document is not None:
            return [(look.find(request.document), request.tokens or _DOCUMENT_TOKENS)]
        wanted = request.page is not None or (request.is_open and request.source is not None)
        if not wanted and not (request.is_open and request.as_json):
            return []
        number = request.number or (_PAGE_NUMBER if request.page is not None else _NUMBER)
        tokens = self._tokens(_SAMPLE_TOKENS)
        return [(one, tokens) for one in look.sample(number, request.seed)]

    def _windows(self, look: SourceLook) -> tuple[tuple[ShownWindow, ...], str]:
        request, target = self.request, self.target
        length = request.length or target.sequence_length
        wanted = request.wants_windows
        if not wanted and (request.page is None or length is None or request.held_out):
            return (), ""
        if length is None:
            raise CorpusError.one(
                "--length",
                "how long sequences are is not known here",
                "say it: --length 2048, or give the recipe",
            )
        packing: Packing = request.packing or target.packing or "contiguous"  # type: ignore[assignment]
        windows, num_windows = _opened(look.facts, length, packing, must=wanted)
        if windows is None:
            return (), ""
        picked = picked_windows(
            look.facts.name,
            num_windows,
            window=request.window,
            plan=target.plan() if request.phase is not None else None,
            phase=request.phase,
            number=request.number or _NUMBER,
            seed=request.seed,
        )
        shown = tuple(
            look.window(
                windows,
                one.window,
                length,
                self._tokens(_SPAN_TOKENS),
                step=one.step,
                epoch=one.epoch,
            )
            for one in picked
        )
        return shown, _said(num_windows, length, packing, picked, request)


def _said(
    num_windows: int,
    length: int,
    packing: Packing,
    picked: Sequence[Picked],
    request: InspectRequest,
) -> str:
    said = f"{num_windows:,} {packing} windows of {length:,} tokens"
    if request.phase is not None:
        return f"{said}; the first that phase {request.phase!r} shows"
    return said if request.window is not None else f"{said}; {len(picked)} of them, drawn"


def _opened(
    facts: CorpusFacts, length: int, packing: Packing, *, must: bool
) -> tuple[View | PackedView | None, int]:
    """Return a source's windows and how many there are; None where it is not packed and nobody
    asked."""
    if packing == "contiguous":
        view = open_view(facts)
        return view, max(0, (view.num_tokens - 1) // length)
    packed = load_packing(facts, length)
    if packed is None:
        if not must:
            return None, 0
        raise CorpusError.one(
            "--length",
            f"source {facts.name!r} is not packed into sequences of {length}",
            "run `rewarm prepare` with that batch.sequence_length, or ask for --packing contiguous",
        )
    windows = open_windows(facts, length, packed.fingerprint)
    return windows, packed.best_fit.num_windows


def _by_score(look: SourceLook) -> list[tuple[str, int]]:
    """Return the documents that score lowest and highest, and the one at which it was cut."""
    import numpy as np

    found: list[tuple[str, int]] = []
    for one in look.score_sets:
        known = np.flatnonzero(np.isfinite(one.values))
        if not known.size:
            continue
        values = one.values[known]
        found.append((f"lowest {one.name}", int(known[values.argmin()])))
        if one.cut_at is not None:
            nearest = int(known[np.abs(values - one.cut_at).argmin()])
            found.append((f"at the cut of {one.name}", nearest))
        found.append((f"highest {one.name}", int(known[values.argmax()])))
    return found


def _print(found: Inspections, target: Target, path: Path, request: InspectRequest) -> None:
    from rewarm.reporting.inspect_terminal import inspection_view, lengths_table
    from rewarm.stages.console import ledger_table
    from rewarm.stages.selecting import show_selections

    console = Console()
    is_overview = found.overview and request.is_open
    if is_overview and target.corpora:
        corpora = list(target.corpora.values())
        console.print(ledger_table(corpora))
        show_selections(corpora, console)
        console.print("", lengths_table(found.sources))
    for index, source in enumerate(found.sources):
        if is_overview and source.facts is not None:
            continue
        if index:
            console.print()
        console.print(inspection_view(source))
    for note in found.notes:
        console.print(f"\nnot shown: {note}", markup=False, highlight=False, soft_wrap=True)
    if is_overview and found.sources:
        hint = f"\none source with documents: rewarm inspect {path} {found.sources[0].name}"
        console.print(hint, markup=False, highlight=False, style="dim", soft_wrap=True)
    if request.phase is not None:
        hint = f"\nall that a step saw: rewarm trace {path} --step N"
        console.print(hint, markup=False, highlight=False, style="dim", soft_wrap=True)
