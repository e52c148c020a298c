"""Which documents of prepared sources are dropped: copies, and those that hold what is measured
on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rewarm.artifacts import file_sha256, fingerprint, temporary_folder
from rewarm.corpus.contamination_index import MeasuredText, TaskText, build_indexes
from rewarm.corpus.decontaminate import Decontamination, decontaminate
from rewarm.corpus.drops import with_drop
from rewarm.corpus.duplicates import Deduplication, deduplicate
from rewarm.corpus.executors import Executor
from rewarm.corpus.tokenize import open_encoder
from rewarm.corpus.views import View
from rewarm.errors import CorpusError, EnvironmentFault, Problems
from rewarm.evaluation.chat import read_conversations
from rewarm.evaluation.harness_index import harness_key
from rewarm.evaluation.selection import choose_documents
from rewarm.evaluation.tasks import read_cloze, read_pairs, read_task
from rewarm.recipe.curate import CurateRecipe
from rewarm.recipe.records import HarnessRecipe, TaskRecipe
from rewarm.records.facts import CorpusFacts
from rewarm.stages.console import CurateConsole
from rewarm.stages.job import Job
from rewarm.stages.survey import Survey

__all__ = ["HarnessTexts", "curate_documents", "with_curation"]

HarnessTexts = Callable[[HarnessRecipe, Path], Mapping[str, Sequence[str]]]
"""Returns the texts of tasks of lm-evaluation-harness, by name: that loads torch, and planning does
not."""

_CHAT = "evaluation.chat"
_HARNESS = "evaluation.harness"


def with_curation(
    job: Job, corpora: Mapping[str, CorpusFacts], found: Survey, *, estimates_allowed: bool
) -> dict[str, CorpusFacts]:
    """Return the facts of every source without what is known to be dropped.

    Where it is not known what will be dropped, the facts are estimates, or (where those are not
    allowed) this is noted as a problem. No text is read.
    """
    curated: dict[str, CorpusFacts] = {}
    measured = _Measured(job, corpora)
    for name, facts in corpora.items():
        try:
            known = _known(job, facts, measured, found) if facts.measured else facts
        except CorpusError as error:
            found.problems.extend(error.problems)
            continue
        if known is None and not estimates_allowed:
            found.problems.add(
                f"sources.{name}",
                "which of its documents are dropped (copies, and what is measured on) is not known,"
                " or what that depends on changed since",
                "run `rewarm prepare` with this recipe",
            )
        curated[name] = known or _undecided(facts)
    return curated


def _known(job: Job, facts: CorpusFacts, measured: _Measured, found: Survey) -> CorpusFacts | None:
    """Return the facts of a source without what is dropped; None where that is not known."""
    copies = _deduplication(job, facts, found)
    if copies is not None:
        drop = copies.load()
        if drop is None:
            return None
        facts = with_drop(facts, drop)
    against = measured.decontamination(facts, found)
    if against is None:
        return facts
    drop = against.load() if measured.is_known else None
    return None if drop is None else with_drop(facts, drop)


def _undecided(facts: CorpusFacts) -> CorpusFacts:
    return facts.model_copy(
        update={
            "measured": False,
            "tokens": "",
            "folder": "",
            "warnings": (
                *facts.warnings,
                "which of its documents are dropped (copies, and what is measured on) is not known "
                "yet (`rewarm prepare`)",
            ),
        }
    )


def curate_documents(
    job: Job, corpora: Sequence[CorpusFacts], found: Survey, harness_texts: HarnessTexts
) -> list[CorpusFacts]:
    """Return the measured facts of every source without what is dropped, looking where nobody has.

    Sources that fail do not stop the others; their problems are raised together (CorpusError).
    """
    problems = Problems()
    curated: list[CorpusFacts] = []
    measured = _Measured(job, {facts.name: facts for facts in corpora}, harness_texts)
    executor = Executor(job.recipe.prepare).here()
    with contextlib.ExitStack() as stack, CurateConsole() as console:
        indexes = _IndexFolders(job, found, stack)
        for facts in corpora:
            try:
                copies = _deduplication(job, facts, found)
                if copies is not None:
                    if copies.load() is None:
                        console.say(facts.name, "looking for copies")
                    facts = with_drop(facts, deduplicate(copies, executor))
                against = measured.decontamination(facts, found)
                if against is not None:
                    index = partial(indexes.of, against.measured)
                    drop = decontaminate(against, index, executor, progress=console.update)
                    facts = with_drop(facts, drop)
            except CorpusError as error:
                problems.extend(error.problems)
                continue
            curated.append(facts)
    problems.raise_as(CorpusError)
    return curated


def _deduplication(job: Job, facts: CorpusFacts, found: Survey) -> Deduplication | None:
    """Return what decides which copies a prepared source goes without; None where they stay."""
    curate = job.recipe.sources[facts.name].curate
    if curate.dedup is False:
        return None
    assert found.model is not None
    assert found.base_folder is not None
    return Deduplication(
        source=facts,
        curate=curate,
        tokenizer_folder=found.base_folder,
        tokenizer_recipe=job.recipe.tokenizer,
        vocab_size=found.model.vocab_size,
    )


def _never_read(wanted: HarnessRecipe, folder: Path) -> Mapping[str, Sequence[str]]:
    raise AssertionError("a plan reads no text of tasks")


class _Measured:
    """What a recipe measures on."""

    def __init__(
        self,
        job: Job,
        corpora: Mapping[str, CorpusFacts],
        harness_texts: HarnessTexts = _never_read,
    ) -> None:
        self._job = job
        self._tasks = tuple(_tasks(job, harness_texts))
        every = {**job.measured_before, **corpora}
        # What holds nothing out is not measured on: it may come and go. An estimate may be wrong.
        self._held_out = tuple(
            facts
            for _, facts in sorted(every.items())
            if facts.held_out_documents or not facts.measured
        )
        self.is_known = all(facts.measured for facts in self._held_out)
        self._texts: dict[tuple[bool, bool], MeasuredText] = {}

    def text(self, curate: CurateRecipe) -> MeasuredText:
        """Return what documents of a source are held against."""
        tasks, held_out = curate.holds_against("tasks"), curate.holds_against("held-out")
        if (tasks, held_out) not in self._texts:
            self._texts[tasks, held_out] = MeasuredText(
                self._tasks if tasks else (), self._held_out if held_out else ()
            )
        return self._texts[tasks, held_out]

    def decontamination(self, facts: CorpusFacts, found: Survey) -> Decontamination | None:
        """Return what decides the drops of a prepared source; None where nothing is dropped."""
        assert found.model is not None
        assert found.base_folder is not None
        text = self.text(self._job.recipe.sources[facts.name].curate)
        if not text:
            return None
        return Decontamination(
            source=facts,
            measured=text,
            tokenizer_folder=found.base_folder,
            tokenizer_recipe=self._job.recipe.tokenizer,
            vocab_size=found.model.vocab_size,
        )


def _tasks(job: Job, harness_texts: HarnessTexts) -> list[TaskText]:
    """Return the evaluation's tasks, those that can be read: `survey` tells of the others."""
    evaluation = job.recipe.evaluation
    found: list[TaskText] = []
    for name, task in evaluation.tasks.items():
        path = job.folder / task.path
        with contextlib.suppress(OSError):
            digest = fingerprint([file_sha256(path), task.max_items, task.kind])
            found.append(TaskText(name, digest, partial(_task_texts, name, path, task)))
    harness = evaluation.harness
    if harness.tasks:
        with contextlib.suppress(OSError):
            digest = harness_key(harness, job.folder)
            read = partial(harness_texts, harness, job.folder)  # their data is loaded there
            found.append(TaskText(_HARNESS, digest, read))
    if evaluation.chat is not None:
        path = job.folder / evaluation.chat
        with contextlib.suppress(OSError):
            found.append(TaskText(_CHAT, file_sha256(path), partial(_chat_texts, path)))
    return found


def _task_texts(name: str, path: Path, task: TaskRecipe) -> dict[str, list[str]]:
    """Return the texts of a task, by its name: every question, alone and with each of its choices;
    texts with the words that they go on with; both sentences of a pair."""
    if task.kind == "cloze":
        clozes = read_cloze(path, max_items=task.max_items)
        return {name: [f"{item.text} {item.target}" for item in clozes]}
    if task.kind == "minimal-pairs":
        return {name: list(itertools.chain(*read_pairs(path, max_items=task.max_items)))}
    texts: list[str] = []
    for item in read_task(path, max_items=task.max_items):
        texts.append(item.question)
        texts += [f"{item.question} {choice}" for choice in item.choices]
    return {name: texts}


def _chat_texts(path: Path) -> dict[str, list[str]]:
    """Return the texts of conversations, without what the system says: many have that in common."""
    texts = [
        "\n".join(message["content"] for message in one if message["role"] != "system")
        for one in read_conversations(path)
    ]
    return {_CHAT: texts}


class _IndexFolders:
    """Indexes of what is measured on, each built where it is first asked for, removed at the end.

    What is found by them stays beside the sources, so that they are not needed again.
    """

    def __init__(self, job: Job, found: Survey, stack: contextlib.ExitStack) -> None:
        self._job = job
        self._found = found
        self._stack = stack
        self._folders: dict[str, Path] = {}

    def of(self, measured: MeasuredText) -> Path:
        """Return the folder with the index."""
        key = measured.key
        if key not in self._folders:
            self._folders[key] = self._build(measured)
        return self._folders[key]

    def _build(self, measured: MeasuredText) -> Path:
        job, found = self._job, self._found
        assert found.model is not None
        assert found.base_folder is not None
        encoder = open_encoder(
            found.base_folder, job.recipe.tokenizer, vocab_size=found.model.vocab_size
        )
        try:
            folder = self._stack.enter_context(temporary_folder(job.prepared_root, ".index-"))
            build_indexes(measured, folder, encoder, self._order)
        except OSError as error:
            raise EnvironmentFault(
                f"{job.prepared_root} cannot be written ({error.strerror or error})",
                "free some space or set prepared_folder elsewhere; the same command then goes on",
            ) from error
        return folder

    def _order(self, view: View) -> list[int]:
        most = self._job.recipe.evaluation.max_bytes_per_domain
        chosen, _ = choose_documents(view, max_bytes=most)
        return chosen
