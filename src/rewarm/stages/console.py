"""What a person watches while work goes on: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from rewarm.planning.plan import Plan
from rewarm.records.facts import CorpusFacts, EvalRecord, StepRecord
from rewarm.reporting.text import harmless
from rewarm.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from rewarm.corpus.decontaminate import CurateProgress
    from rewarm.corpus.prepare import PrepareProgress
    from rewarm.corpus.scores import ScoreProgress
    from rewarm.retention.tally import RehearsalProgress

__all__ = [
    "CurateConsole",
    "PrepareConsole",
    "RehearseConsole",
    "ScoreConsole",
    "TrainConsole",
    "deltas_line",
    "ledger_table",
]

_PLAIN_EVERY_S = 10.0
_WIDE = 70
_MOST_DETAILS = 3
_SHORT = {
    "bits_per_byte": "bpb",
    "answer_bits_per_byte": "answer bpb",
    "answer_contrast": "contrast",
    "chat_bits_per_byte": "chat bpb",
    "matched_continuation": "matched",
    "multiple_choice": "accuracy",
    "minimal_pairs": "pairs",
    "cloze": "cloze",
    "task_score": "",  # the harness's tasks bear their metric's name
    "task_loss": "",
    "task_perplexity": "",
}


class _SourceBars:
    """A bar for each source of text, with what `_show` is given; plain lines off a terminal."""

    _verb: str

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rates]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, source: str, message: str) -> None:
        """Print a line that stays."""
        self._console.print(
            f"{self._verb} {source}: {message}", markup=False, highlight=False, soft_wrap=True
        )

    def _show(self, source: str, done: int, total: int, rates: str) -> None:
        if self._console.is_terminal:
            if source not in self._tasks:
                self._tasks[source] = self._progress.add_task(
                    f"{self._verb} {source}", total=max(total, 1), rates=""
                )
            self._progress.update(self._tasks[source], completed=done, rates=rates)
            return
        if done >= total or time.monotonic() - self._last_line.get(source, 0.0) >= _PLAIN_EVERY_S:
            self._last_line[source] = time.monotonic()
            self.say(source, f"{done / max(total, 1):.0%}, {rates}")


class PrepareConsole(_SourceBars):
    """Progress of `prepare`: documents/s, MB/s and the time that is left, by source."""

    _verb = "prepare"

    def update(self, progress: PrepareProgress) -> None:
        """Show how far one source is."""
        self._show(progress.source, progress.bytes, progress.total_bytes, _prepare_rates(progress))


def _prepare_rates(progress: PrepareProgress) -> str:
    elapsed = max(progress.elapsed_s, 1e-9)
    left = (progress.total_bytes - progress.bytes) * elapsed / max(progress.bytes, 1)
    return (
        f"{format_count(progress.documents)} documents, "
        f"{progress.documents / elapsed:,.0f}/s, {progress.bytes / elapsed / 1e6:.1f} MB/s, "
        f"{format_duration(left)} left"
    )


class ScoreConsole(_SourceBars):
    """Progress of the scores of documents: documents, tokens/s and the time left, by source."""

    _verb = "score"

    def update(self, progress: ScoreProgress) -> None:
        """Show how far the scores of one source are."""
        self._show(progress.source, progress.tokens, progress.total_tokens, _token_rates(progress))


def _token_rates(progress: ScoreProgress | CurateProgress) -> str:
    elapsed = max(progress.elapsed_s, 1e-9)
    left = (progress.total_tokens - progress.tokens) * elapsed / max(progress.tokens, 1)
    return (
        f"{format_count(progress.documents)} documents, "
        f"{format_count(progress.tokens / elapsed)} tokens/s, {format_duration(left)} left"
    )


class CurateConsole(_SourceBars):
    """Progress of looking for documents to drop: documents, tokens/s, time left, by source."""

    _verb = "curate"

    def update(self, progress: CurateProgress) -> None:
        """Show how far the documents of one source are looked through."""
        self._show(progress.source, progress.tokens, progress.total_tokens, _token_rates(progress))


class RehearseConsole(_SourceBars):
    """Progress of `rehearse`: tokens kept, tokens/s and share dropped, by source."""

    _verb = "rehearse"

    def update(self, progress: RehearsalProgress) -> None:
        """Show how far one source is."""
        done, total = progress.num_tokens, progress.wanted_tokens
        self._show(progress.source, done, total, _rehearse_rates(progress))


def _rehearse_rates(progress: RehearsalProgress) -> str:
    rate = progress.num_sampled_tokens / max(progress.elapsed_s, 1e-9)
    return (
        f"{format_count(progress.num_tokens)} tokens kept, {rate:,.0f} sampled/s, "
        f"{progress.dropped_share:.0%} dropped"
    )


class TrainConsole:
    """Live view of a run: step, loss, rate, phase, tokens/s, time left, last held-out deltas."""

    def __init__(
        self,
        plan: Plan,
        console: Console | None = None,
        *,
        label: str = "",
        recorded: Callable[[], Iterable[EvalRecord]] = tuple,
    ) -> None:
        """`recorded` gives what is on record when the first evaluation comes."""
        self._science = plan.science
        self._console = console or Console()
        self._label = label or plan.name
        self._recorded = recorded
        self._base: dict[tuple[str, str], float] = {}
        self._deltas = ""
        self._last_line = 0.0
        self._started = time.monotonic()
        self._first_step: int | None = None
        self._stepping_s = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if self._console.width >= _WIDE else 8),
            TextColumn("{task.fields[place]}"),
            console=self._console,
        )
        self._task = self._progress.add_task(
            self._label, total=self._science.num_steps, place="starting"
        )
        self._facts = ""
        self._live = Live(
            self._progress, console=self._console, refresh_per_second=4, transient=False
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, message: str) -> None:
        """Print a line that stays: a resume, a checkpoint passed over, a warning."""
        self._console.print(
            f"{self._label}: {message}", markup=False, highlight=False, soft_wrap=True
        )

    def show_preparation(self, what: str, done: int, total: int) -> None:
        """Show how far work before the first step is."""
        if self._console.is_terminal:
            self._progress.update(self._task, place=f"{what}, {done}/{total}")
        elif done == total or time.monotonic() - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = time.monotonic()
            self.say(f"{what}, {done}/{total}")

    def show_step(self, record: StepRecord) -> None:
        """Show the step that was just taken."""
        if self._first_step is None:
            self._first_step = record.step
            self._started = time.monotonic() - record.step_s
        self._stepping_s += record.step_s
        place = f"{record.step + 1}/{self._science.num_steps}, {self._time_left(record)} left"
        self._facts = self._facts_of(record)
        last = record.step + 1 == self._science.num_steps
        if self._console.is_terminal:
            self._progress.update(self._task, completed=record.step + 1, place=place)
            self._draw()
            return
        if last or time.monotonic() - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = time.monotonic()
            self.say(f"{place}; {self._facts}")
            if not last:  # the last step is evaluated next
                self._tell_deltas()

    def show_evals(self, records: Iterable[EvalRecord]) -> None:
        """Show the deltas of an evaluation against the base at step 0."""
        found = list(records)
        if not self._base:
            # After a resume the base's figures are on record and not measured again.
            self._base = {(r.domain, r.metric): r.value for r in self._recorded() if r.step == 0}
        for record in found:
            if record.step == 0:
                self._base[record.domain, record.metric] = record.value
        line = deltas_line(found, self._base)
        if not line:
            return
        step = found[0].step
        self._deltas = f"step {step} held-out: {line}"
        if self._console.is_terminal:
            self._draw()
        elif step in (0, self._science.num_steps):
            self._tell_deltas()

    def _tell_deltas(self) -> None:
        """Print the last evaluation once, as a plain line."""
        if self._deltas:
            self.say(self._deltas)
            self._deltas = ""

    def _draw(self) -> None:
        """Show the bar, and under it what does not fit beside it, on as many lines as it takes."""
        below = [Text(text, style="dim") for text in (self._facts, self._deltas) if text]
        self._live.update(Group(self._progress, *below))

    def _time_left(self, record: StepRecord) -> str:
        """Evaluations and checkpoints count, at the share of the time that they took so far."""
        assert self._first_step is not None
        elapsed = time.monotonic() - self._started
        done = record.step + 1 - self._first_step
        return format_duration(elapsed / done * (self._science.num_steps - record.step - 1))

    def _facts_of(self, record: StepRecord) -> str:
        """Tokens a second are those of the steps alone, whatever stands between them."""
        assert self._first_step is not None
        num_tokens = (record.step + 1 - self._first_step) * self._science.tokens_per_step
        return (
            f"loss {record.loss:.3f}, lr {record.lr:.2e}, {record.phase}, "
            f"{format_count(num_tokens / max(self._stepping_s, 1e-9))} tok/s"
        )


def deltas_line(records: Sequence[EvalRecord], base: dict[tuple[str, str], float]) -> str:
    """Return `old bpb 1.203 (+0.012), …` for the records of one evaluation."""
    parts = []
    for record in records:
        start = base.get((record.domain, record.metric))
        change = f" ({record.value - start:+.3f})" if start is not None and record.step else ""
        what = " ".join(filter(None, (record.domain, _SHORT[record.metric])))
        parts.append(f"{what} {record.value:.3f}{change}")
    return ", ".join(parts)


def ledger_table(facts: Sequence[CorpusFacts]) -> Table:
    """Return the data ledger: documents, tokens, bytes, held out and rejected, by source."""
    table = Table(title="Data ledger", title_justify="left", box=None, header_style="bold")
    table.add_column("source")
    table.add_column("role")
    for name in ("documents", "tokens", "bytes", "held out", "rejected"):
        table.add_column(name, justify="right")
    told = [(corpus.name, said) for corpus in facts if (said := _provenance(corpus))]
    if told:
        table.caption = Text("\n".join(f"{name}: {harmless(said)}" for name, said in told))
        table.caption_justify = "left"
    for corpus in facts:
        rejected = sum(corpus.rejected.values())
        reasons = ", ".join(
            f"{reason} {count}" for reason, count in sorted(_folded(corpus.rejected).items())
        )
        table.add_row(
            corpus.name,
            corpus.role,
            f"{corpus.num_documents:,}",
            format_count(corpus.num_tokens),
            format_bytes(corpus.num_bytes),
            f"{corpus.held_out_documents:,}",
            f"{rejected} ({reasons})" if rejected else "0",
        )
    return table


def _folded(rejected: Mapping[str, int]) -> dict[str, int]:
    """Return reasons with those of one family as one where it has many; files have them all."""
    details = Counter(reason.partition(":")[0] for reason in rejected if ":" in reason)
    folded = Counter[str]()
    for reason, count in rejected.items():
        family = reason.partition(":")[0]
        folded[family if details[family] > _MOST_DETAILS else reason] += count
    return dict(folded)


def _provenance(corpus: CorpusFacts) -> str:
    """Return language and licence as the recipe has them, or by documents where fields say it, and
    of conversations the share that is trained on."""
    said = [corpus.stated_language, corpus.stated_licence]
    if corpus.num_label_tokens is not None:
        share = corpus.num_label_tokens / max(corpus.num_tokens, 1)
        said.append(f"{share:.0%} of its tokens are answers, which the loss counts")
    return "; ".join(one for one in said if one)
