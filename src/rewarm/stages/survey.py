"""What a recipe stands on, looked at before any work: its base, the files of its text, its tasks.

Everything that is wrong with them is collected, so that a person learns of it at once.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from rewarm.corpus.executors import executor_packages
from rewarm.corpus.filters import curation_packages
from rewarm.corpus.inputs import find_inputs
from rewarm.corpus.place import SourceText
from rewarm.corpus.rehearsed import Rehearsal, find_rehearsal, load_rehearsal
from rewarm.errors import CorpusError, EnvironmentFault, Problems, UserError
from rewarm.planning.layers import note_unlike_layers
from rewarm.planning.model_facts import read_model_facts
from rewarm.records.facts import ModelFacts, OptimizerStateFacts
from rewarm.stages.base import find_base
from rewarm.stages.job import Job
from rewarm.stages.keeping import EmbeddingModel, check_packages, find_embedding
from rewarm.stages.optimizer_state import find_optimizer_state

__all__ = ["Survey", "note_unmade", "survey"]


@dataclass(slots=True)
class Survey:
    """What was found, and in `problems` what is wrong with it.

    `texts` are the sources whose files were found, in the recipe's order; without a base there are
    none. `rehearsals` are those that the base makes up, of which `texts` holds what is made.
    `embeddings` are the models by which sources keep what lies nearest, by the sources' names.
    `task_bytes` is what each local task runs through the model.
    `fault` is set where the hub cannot be reached: no mistake of the person's, yet nothing can go
    on without it.
    """

    base_folder: Path | None = None
    model: ModelFacts | None = None
    optimizer_state: OptimizerStateFacts | None = None
    texts: list[SourceText] = field(default_factory=list)
    rehearsals: list[Rehearsal] = field(default_factory=list)
    embeddings: dict[str, EmbeddingModel] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    task_bytes: dict[str, int] = field(default_factory=dict)
    fault: EnvironmentFault | None = None

    def unmade(self) -> list[Rehearsal]:
        """Return the rehearsals whose text is not sampled yet."""
        made = {text.name for text in self.texts}
        return [rehearsal for rehearsal in self.rehearsals if rehearsal.name not in made]

    def raise_as(self, error: type[UserError]) -> None:
        """Raise `error` with every problem, or the fault where it is the only trouble."""
        if self.fault is not None and len(self.problems) == 1:
            raise self.fault
        self.problems.raise_as(error)


def survey(job: Job) -> Survey:
    """Look at the base, at the files of every source, at the tasks and the mirror of a recipe."""
    found = Survey()
    try:
        found.base_folder = find_base(job.recipe.base, job.folder)
        found.model = read_model_facts(found.base_folder)
        note_unlike_layers(found.base_folder, found.model, found.problems)
    except UserError as error:
        found.problems.extend(error.problems)
    except EnvironmentFault as fault:
        found.fault = fault
        found.problems.add("base.path", fault.what, fault.fix)
    try:
        found.optimizer_state = find_optimizer_state(job.recipe.base, job.folder, found.base_folder)
    except UserError as error:
        found.problems.extend(error.problems)
    _check_packages(job, found.problems)
    _find_embeddings(job, found)
    faults: list[EnvironmentFault] = []
    inputs = find_inputs(job.recipe.sources, job.folder, found.problems, faults)
    if faults and found.fault is None:
        found.fault = faults[0]
    if found.base_folder is not None and found.model is not None:
        texts = {
            name: SourceText(
                name,
                job.recipe.sources[name],
                paths,
                job.folder,
                found.base_folder,
                job.recipe.tokenizer,
            )
            for name, paths in inputs.items()
        }
        _check_templates(job, found.model, found.problems)
        _find_rehearsals(job, found, found.model, texts)
        found.texts = [
            texts[name]
            for name, source in job.recipe.sources.items()
            if name in texts and (source.format != "chat" or found.model.has_chat_template)
        ]
    _check_task_names(job, found.problems)
    _check_tasks(job, found)
    _check_harness(job, found.problems)
    _check_chat(job, found.problems)
    _check_mirror(job, found.problems)
    return found


def note_unmade(rehearsal: Rehearsal, problems: Problems) -> None:
    """Note that the text of a source is not sampled yet, and how it comes to be."""
    problems.add(
        f"sources.{rehearsal.name}",
        "its text is not sampled yet, or is damaged, or base or settings changed since",
        "run `rewarm rehearse` with this recipe (`rewarm run` does so by itself)",
    )


def _find_rehearsals(
    job: Job, found: Survey, model: ModelFacts, texts: dict[str, SourceText]
) -> None:
    """Note the sources that the base makes up, and put what is made among the texts."""
    of_files = dict(texts)
    for name, source in job.recipe.sources.items():
        wanted = source.rehearse.prefixes if source.rehearse is not None else None
        if wanted is None or (wanted in job.recipe.sources and wanted not in of_files):
            continue  # no rehearsal; or the trouble with that source is told as its own
        try:
            rehearsal = find_rehearsal(
                name,
                source,
                model,
                of_files,
                recipe_folder=job.folder,
                prepared_root=job.prepared_root,
                tokenizer_recipe=job.recipe.tokenizer,
            )
        except UserError as error:
            found.problems.extend(error.problems)
            continue
        found.rehearsals.append(rehearsal)
        if load_rehearsal(rehearsal) is not None:
            texts[name] = rehearsal.text(job.folder, is_made=True)


def _find_embeddings(job: Job, found: Survey) -> None:
    """Note the models that embed texts, and those that are not there."""
    for name, source in job.recipe.sources.items():
        model = None if source.keep is None else source.keep.embedding_model
        if model is None:
            continue
        where = f"sources.{name}.keep.embedding"
        try:
            found.embeddings[name] = find_embedding(model, job.folder, where)
        except UserError as error:
            found.problems.extend(error.problems)
        except EnvironmentFault as fault:
            found.fault = found.fault or fault
            found.problems.add(where, fault.what, fault.fix)


def _check_templates(job: Job, model: ModelFacts, problems: Problems) -> None:
    """Note conversations that the base has no template to write by."""
    for name, source in job.recipe.sources.items():
        if source.format == "chat" and not model.has_chat_template:
            problems.add(
                f"sources.{name}.format",
                "the base has no chat template, so nothing says how its messages are written",
                "put a chat_template.jinja into the base's folder, or give text with question_field"
                " and answer_field",
            )


def _check_packages(job: Job, problems: Problems) -> None:
    """Note what the recipe needs and is not installed; nothing is imported."""
    if job.recipe.optimizer.kind == "adamw8bit" and importlib.util.find_spec("torchao") is None:
        problems.add(
            "optimizer.kind",
            "adamw8bit is torchao's, which is not installed",
            "pip install torchao, or leave it at adamw",
        )
    for module in executor_packages(job.recipe.prepare):
        if importlib.util.find_spec(module) is None:
            problems.add(
                "prepare.executor",
                f"it needs {module}, which is not installed",
                f"pip install 'rewarm[{'ray' if module == 'ray' else 'curate'}]'",
            )
    for name, source in job.recipe.sources.items():
        missing = [
            module
            for module in curation_packages(source.curate)
            if importlib.util.find_spec(module) is None
        ]
        if missing:
            problems.add(
                f"sources.{name}.curate",
                f"it needs what is not installed: {', '.join(missing)}",
                "pip install 'rewarm[curate]'"
                + (" fasttext-numpy2-wheel fasteners" if "fasttext" in missing else ""),
            )
    for name, source in job.recipe.sources.items():
        if source.keep is not None:
            check_packages(source.keep, f"sources.{name}.keep", problems)
    if job.recipe.parameters.adapter is not None and importlib.util.find_spec("peft") is None:
        problems.add(
            "parameters.adapter",
            "adapters are peft's, which is not installed",
            "pip install 'rewarm[adapters]', or leave it out",
        )


def _check_mirror(job: Job, problems: Problems) -> None:
    """Note a mirror that no package here can reach."""
    if job.recipe.checkpoints.mirror is not None:
        from rewarm.training.mirror.remote import url_problem

        problem = url_problem(job.recipe.checkpoints.mirror, job.run.path)
        problems.extend([problem] if problem is not None else [])


def _check_task_names(job: Job, problems: Problems) -> None:
    """Note tasks that are called as a source is of the run that is gone on with; the recipe's own
    sources were held against them where it was read."""
    evaluation = job.recipe.evaluation
    called = [(f"evaluation.tasks.{name}", name) for name in evaluation.tasks]
    called += [("evaluation.harness.tasks", name) for name in evaluation.harness.tasks]
    for where, name in called:
        if name in job.measured_before:
            problems.add(
                where,
                f"the run that it goes on with has a source {name!r}, and figures go by name",
                "give the task another name"
                if where.startswith("evaluation.tasks")
                else "leave it out here",
            )


def _check_tasks(job: Job, found: Survey) -> None:
    """Note every task file that cannot be read now rather than after hours of training; of the
    others, what text they are scored on.
    """
    for name, task in job.recipe.evaluation.tasks.items():
        from rewarm.evaluation.tasks import (
            choice_texts,
            cloze_texts,
            pair_texts,
            read_cloze,
            read_pairs,
            read_task,
        )

        path = job.folder / task.path
        try:
            if task.kind == "cloze":
                texts = cloze_texts(read_cloze(path, max_items=task.max_items))
            elif task.kind == "minimal-pairs":
                texts = pair_texts(read_pairs(path, max_items=task.max_items))
            else:
                texts = choice_texts(
                    read_task(path, max_items=task.max_items), normalise=task.normalise
                )
            found.task_bytes[name] = sum(len(text.encode()) for text in texts)
        except CorpusError as error:
            for problem in error.problems:
                what = f"{problem.where}: {problem.what}"
                found.problems.add(f"evaluation.tasks.{name}.path", what, problem.fix)


def _check_harness(job: Job, problems: Problems) -> None:
    """Note tasks of lm-evaluation-harness that it does not have; nothing of it is imported."""
    wanted = job.recipe.evaluation.harness
    if not wanted.tasks:
        return
    from rewarm.evaluation.harness_index import harness_folder, near_names, task_names

    where = "evaluation.harness"
    installed = harness_folder()
    if installed is None:
        problems.add(
            f"{where}.tasks",
            "they are lm-evaluation-harness's, which is not installed",
            "pip install 'rewarm[tasks]', or write them as evaluation.tasks of your own",
        )
        return
    known: frozenset[str] = frozenset()
    if wanted.include_path is not None:
        own = job.folder / wanted.include_path
        if not own.is_dir():
            problems.add(
                f"{where}.include_path", f"{own} is not a folder", "name one of YAML files"
            )
            return
        known = task_names(own)
    if not known.issuperset(wanted.tasks):
        known |= task_names(installed)
    for name in wanted.tasks:
        if name not in known:
            near = near_names(name, known)
            problems.add(
                f"{where}.tasks",
                f"lm-evaluation-harness has no task, group or tag {name!r}",
                f"did you mean {' or '.join(near)}?" if near else "look at `lm_eval ls tasks`",
            )


def _check_chat(job: Job, problems: Problems) -> None:
    """Note what is wrong with the file of messages, if there is one."""
    if job.recipe.evaluation.chat is None:
        return
    from rewarm.evaluation.chat import read_conversations

    try:
        read_conversations(job.folder / job.recipe.evaluation.chat)
    except CorpusError as error:
        for problem in error.problems:
            what = f"{problem.where}: {problem.what}"
            problems.add("evaluation.chat", what, problem.fix)
