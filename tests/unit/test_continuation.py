"""Branches and extensions: the same run up to a step, and then on as if it had never been left."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rewarm.cli import main
from rewarm.corpus.views import open_view
from rewarm.errors import PlanError
from rewarm.order.position import samples_before, slots_of_step
from rewarm.planning import continuation
from rewarm.planning.amended import amended
from rewarm.planning.amendments import Amendments
from rewarm.planning.continuation import rate_to_go_on_from
from rewarm.planning.plan import Plan, Science, load_plan
from rewarm.records.run_folder import RunFolder
from rewarm.training import settling
from rewarm.training.saved import read_saved_state
from tests.support.fake_facts import make_corpus_facts
from tests.support.road import make_reader_folder
from tests.unit.test_plan import CORPORA, plan_of

STEPS = "budget.tokens=1_280_000"
INFINITE = (
    STEPS,
    "schedule.kind=infinite",
    "schedule.peak_lr=pretraining.peak",
    "schedule.final_lr=peak/10",
    "phases[0].until={fraction=0.5}",
)


def graft(
    trunk: Science, more: Science, *, at_step: int, amendments: Amendments | None = None
) -> Science:
    amendments = amendments or Amendments()
    return continuation.graft(trunk, more, at_step=at_step, amendments=amendments)


def trunk_science() -> Science:
    return plan_of(*INFINITE).science


def more_science(*overrides: str) -> Science:
    return plan_of(
        "budget.tokens=128_000",
        "schedule.kind=pieces",
        'schedule.pieces=[{shape="exponential", start_lr=5.5e-4, end_lr=1e-4}]',
        'phases=[{name="anneal", weights={new=1, qa=1}}]',
        *overrides,
    ).science


def test_the_rate_can_be_left_where_it_is_constant() -> None:
    trunk = trunk_science()
    for step in (600, 700, 850):
        assert rate_to_go_on_from(trunk, step) == pytest.approx(5.5e-4)
    for step in (599, 851, 1000):
        with pytest.raises(PlanError, match="it is constant at steps 600 to 850"):
            rate_to_go_on_from(trunk, step)
    with pytest.raises(PlanError, match="only schedules with a constant stretch"):
        rate_to_go_on_from(plan_of(STEPS).science, 10)


def test_a_branch_is_the_trunk_and_then_its_own() -> None:
    trunk, more = trunk_science(), more_science()
    branch = graft(trunk, more, at_step=700)
    assert branch.num_steps == 800
    assert [branch.lr(step) for step in range(700)] == [trunk.lr(step) for step in range(700)]
    assert branch.lr(700) == pytest.approx(5.5e-4)
    assert branch.lr(750) == pytest.approx((5.5e-4 * 1e-4) ** 0.5)
    for step in (0, 499, 500, 699):
        one, other = slots_of_step(trunk.order(), step), slots_of_step(branch.order(), step)
        assert (one.source == other.source).all()
        assert (one.window == other.window).all()
    assert [(p.name, p.start_step, p.end_step) for p in branch.phases] == [
        ("general", 0, 500),
        ("qa", 500, 700),
        ("anneal", 700, 800),
    ]
    assert branch.origin is not None
    assert branch.origin.plan == Plan.science_fingerprint(trunk)


def test_sources_go_on_counting_in_a_branch() -> None:
    trunk = trunk_science()
    branch = graft(trunk, more_science(), at_step=700)
    names = [source.name for source in branch.sources]
    before = samples_before(trunk.order(), 700)
    seen: dict[str, list[int]] = {name: [] for name in names}
    for step in range(700, 800):
        slots = slots_of_step(branch.order(), step)
        for source, sample in zip(slots.source, slots.sample, strict=True):
            seen[names[source]].append(int(sample))
    assert not seen["old"]
    for index, name in enumerate(names):
        if seen[name]:
            expected = np.arange(before[index], before[index] + len(seen[name]))
            assert sorted(seen[name]) == expected.tolist()


def test_new_sources_join_behind_the_trunk_s() -> None:
    german = 'sources.german={path="g.jsonl", role="new"}'

    corpora = {**CORPORA, "german": make_corpus_facts("german")}
    more = plan_of(
        "budget.tokens=128_000",
        german,
        'phases=[{name="general", weights={german=3, old=1}}]',
        corpora=corpora,
    ).science
    extended = graft(trunk_science(), more, at_step=700)
    assert [source.name for source in extended.sources] == ["old", "new", "qa", "german"]
    last = extended.phases[-1]
    assert last.name == "general+"
    assert [weight / 65_536 for weight in last.weights] == [0.25, 0, 0, 0.75]
    assert last.samples == (250, 0, 0, 750)


def test_what_does_not_fit_is_told_at_once() -> None:
    more = more_science("seed=2", "optimizer.weight_decay=0.3")
    more = more.model_copy(update={"packing": "best-fit"})
    sources = tuple(
        source.model_copy(update={"key": "other"}) if source.name == "new" else source
        for source in more.sources
    )
    with pytest.raises(PlanError) as caught:
        graft(trunk_science(), more.model_copy(update={"sources": sources}), at_step=700)
    assert [problem.where for problem in caught.value.problems] == [
        "packing",
        "seed",
        "optimizer",
        "sources.new",
    ]


def stages_told(science: Science) -> list[tuple[int, int, int | None]]:
    return [(stage.start_step, stage.frozen_layers, stage.half) for stage in science.stages]


def test_what_gradients_have_frozen_stays_frozen_in_a_branch() -> None:
    """Layers that the trunk froze by the step of the branch, not those that it froze later."""
    trunk = plan_of(*INFINITE, "freezing.kind=auto").science
    chain = Amendments("plan")
    for step, layers in ((300, 1), (700, 2), (800, 3)):
        chain = chain.with_freeze(step, trunk.num_steps, layers, "settled")
    branch = graft(trunk, more_science(), at_step=700, amendments=chain)
    assert stages_told(branch) == [(0, 0, None), (300, 1, None), (700, 2, None)]
    # A checkpoint holds the moments of what was trained in the step before it.
    for step in range(700):
        in_branch = branch.stage_at(step, Amendments()).frozen_layers
        assert in_branch == trunk.stage_at(step, chain).frozen_layers
    # Intervals of its own length would be compared with the trunk's: nothing more is decided.
    assert branch.freezing.kind == "none"


def test_a_branch_keeps_the_blends_that_its_trunk_was_dealt() -> None:
    """Old text was raised at step 630 of the trunk; the branch leaves it at 700."""
    trunk, more = trunk_science(), more_science()
    chain = Amendments("p").with_replay(630, 1000, 0.5, "forgotten")
    chain = chain.with_replay(800, 1000, 0.6, "again, after it was left")
    branch = graft(trunk, more, at_step=700, amendments=chain)
    dealt = amended(trunk, chain).order()
    for step in (0, 499, 500, 629, 630, 699):
        expected, found = slots_of_step(dealt, step), slots_of_step(branch.order(), step)
        assert (expected.source == found.source).all()
        assert (expected.window == found.window).all()
    planned = slots_of_step(trunk.order(), 699)
    assert (planned.source != slots_of_step(branch.order(), 699).source).any()
    assert [(p.name, p.start_step) for p in branch.phases] == [
        ("general", 0),
        ("qa", 500),
        ("qa, replay 0.5", 630),
        ("anneal", 700),
    ]
    # What follows has its own blend, and sources go on counting.
    assert sorted(weight for weight in branch.phases[-1].weights if weight) == [32768, 32768]
    slots = slots_of_step(branch.order(), 700)
    before = samples_before(branch.order(), 700)
    assert all(n >= before[s] for s, n in zip(slots.source, slots.sample, strict=True))


def test_planned_milestones_stay_at_the_trunk_s_steps() -> None:
    freezing = ('freezing={kind="freezeout", scale_rate=false}',)
    trunk = plan_of(*INFINITE, *freezing).science
    assert [stage.start_step for stage in trunk.stages][:2] == [0, 512]
    branch = graft(trunk, more_science(), at_step=700)
    assert stages_told(branch) == stages_told(trunk)
    with pytest.raises(PlanError, match="nowhere is it constant"):
        graft(plan_of(*INFINITE, "freezing.kind=freezeout").science, more_science(), at_step=700)


def test_the_half_that_trains_goes_on_until_another_phase_draws_one() -> None:
    half = "parameters.random_half=true"
    trunk = plan_of(*INFINITE, half).science
    assert stages_told(trunk) == [(0, 0, 0), (500, 0, 1)]
    assert stages_told(graft(trunk, more_science(half), at_step=700)) == [(0, 0, 0), (500, 0, 1)]
    assert stages_told(graft(trunk, more_science(half), at_step=500)) == [(0, 0, 0)]
    phases = 'phases=[{name="a", weights={new=1}, until={step=20}}, {name="b", weights={old=1}}]'
    two = more_science(half, phases)
    assert stages_told(graft(trunk, two, at_step=700)) == [(0, 0, 0), (500, 0, 1), (720, 0, 2)]


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps with an infinite schedule, constant from step 8 to 14, trained to 14."""
    folder = make_reader_folder(tmp_path_factory.mktemp("trunk") / "reader")
    recipe = folder / "trunk.toml"
    recipe.write_text(
        """
name = "trunk"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 2560 }
batch = { tokens = 128, sequence_length = 32 }
sources.new = { path = "my-text", role = "new", held_out = 0.1 }
sources.old = { path = "my-old-text", role = "replay", held_out = 0.1 }
phases = [{ name = "all", weights = { new = 0.5, old = 0.5 } }]
evaluation = { every_steps = 10, max_bytes_per_domain = 2000, max_answers = 2 }
checkpoints = { every_steps = 2, keep = 20, mirror = "file://MIRROR" }
training = { num_threads = 1 }
[schedule]
kind = "infinite"
peak_lr = "pretraining.peak"
final_lr = "peak/10"
cooldown_end = 0.4
anneal_start = 0.7
""".replace("MIRROR", str(folder / "mirror"))
    )
    assert main(["prepare", str(recipe)]) == 0
    assert main(["train", str(recipe), "--until-step", "14"]) == 0
    return folder


def weights_of(run: Path, step: int) -> bytes:
    return (run / "checkpoints" / f"step-{step:08d}" / "model.safetensors").read_bytes()


def test_a_branch_that_copies_the_trunk_s_anneal_ends_in_the_same_weights(trunk: Path) -> None:
    """6 steps to the trunk's own final rate, of its own blend: bit for bit what the trunk does."""
    runs = trunk / "runs"
    branch = ["branch", str(runs / "trunk"), "--anneal", "768"]
    assert main([*branch, "--at-step", "14", "--name", "copy"]) == 0
    assert main(["train", str(trunk / "trunk.toml")]) == 0
    assert load_plan(runs / "copy" / "plan.json").science.num_steps == 20
    # The blend's cycle of two slots begins anew with the phase, at an even position: same slots.
    assert weights_of(runs / "copy", 20) == weights_of(runs / "trunk", 20)


def test_a_branch_is_a_run_of_its_own(trunk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trunk / "runs"
    before = {path: path.read_bytes() for path in (runs / "trunk").rglob("*.json")}
    branch = ["branch", str(runs / "trunk"), "--anneal", "512", "--at-step", "10", "--name", "b"]
    assert main([*branch, "--plan-only"]) == 0
    out = capsys.readouterr().out
    assert "begins with step-00000010" in out
    assert "next: rewarm train" in out
    assert "fresh moments" not in out, "moments go on as they were"
    run = RunFolder(runs / "b")
    saved = read_saved_state(run.checkpoints / "step-00000010")
    assert saved.plan == load_plan(run.plan).fingerprint
    assert [record.step for record in run.steps()] == list(range(10))
    assert {record.step for record in run.evals()} == {0, 1, 2, 4, 8, 10}
    # Given again it goes on where it was; killed in between it would do the same.
    assert main([*branch]) == 0
    assert [record.step for record in run.steps()] == list(range(14))
    assert run.steps()[-1].lr == pytest.approx(load_plan(run.plan).science.lr(13))
    assert run.evals()[-1].step == 14
    # A mirror holds one run: this one's lies within the trunk's.
    mirrors = {path.parent for path in trunk.glob("mirror/**/mirrored-step-*")}
    assert {trunk / "mirror", trunk / "mirror" / "b"} <= mirrors
    assert (trunk / "mirror" / "b" / "mirrored-step-00000014" / "MANIFEST.json").is_file()
    assert main(["report", str(run.path)]) == 0
    assert main(["export", str(run.path)]) == 0
    after = {path: path.read_bytes() for path in (runs / "trunk").rglob("*.json")}
    assert before == after, "the trunk is not touched"


def test_an_extension_goes_on_with_another_recipe(trunk: Path) -> None:
    recipe = (trunk / "trunk.toml").read_text()
    (trunk / "more-text").mkdir(exist_ok=True)
    for number in range(200):
        text = f"the rate of text {number} in a step to learn " * 20
        (trunk / "more-text" / f"{number}.txt").write_text(text)
    recipe = recipe.replace(
        "phases =", 'sources.more = { path = "more-text", role = "new", held_out = 0.1 }\nphases ='
    )
    recipe = recipe.replace("{ new = 0.5, old = 0.5 }", "{ more = 0.75, old = 0.25 }")
    (trunk / "more.toml").write_text(recipe.replace('name = "trunk"', 'name = "more"'))
    runs = trunk / "runs"
    extend = [
        "extend",
        str(runs / "trunk"),
        "--at-step",
        "12",
        "--recipe",
        str(trunk / "more.toml"),
    ]
    assert main([*extend, "--budget", "+1024", "--anneal", "256", "--name", "e"]) == 0
    science = load_plan(runs / "e" / "plan.json").science
    assert science.num_steps == 20
    assert {round(science.lr(step), 9) for step in range(8, 18)} == {5.5e-3}
    assert science.lr(19) < 5.5e-3
    assert [source.name for source in science.sources] == ["new", "old", "more"]
    run = RunFolder(runs / "e")
    assert run.steps()[-1].samples[0] == 0
    assert {record.domain for record in run.evals() if record.step == 20} >= {"old", "more"}


def measured_again(trunk: Path, name: str, held_out: float, texts: dict[str, str]) -> list[str]:
    """Write a recipe whose one source holds some texts, and return what extends the run by it."""
    (trunk / name).mkdir()
    for file, text in texts.items():
        (trunk / name / f"{file}.txt").write_text(text)
    recipe = (trunk / "trunk.toml").read_text().replace('name = "trunk"', f'name = "{name}"')
    lines = [line for line in recipe.splitlines() if not line.startswith(("sources", "phases"))]
    at = lines.index("[schedule]")
    lines[at:at] = [
        f'sources.again = {{ path = "{name}", role = "new", held_out = {held_out} }}',
        'phases = [{ name = "again", weights = { again = 1.0 } }]',
    ]
    (trunk / f"{name}.toml").write_text("\n".join(lines))
    run, file = str(trunk / "runs" / "trunk"), str(trunk / f"{name}.toml")
    given = ["--recipe", file, "--at-step", "12", "--budget", "+256", "--name", name]
    return ["extend", run, *given, "--plan-only"]


def test_what_the_run_holds_out_is_not_trained_on_by_what_follows(trunk: Path) -> None:
    facts = load_plan(trunk / "runs" / "trunk" / "plan.json").conduct.corpora["new"]
    view = open_view(facts, held_out=True)
    names = [view.document_id(index) for index in range(view.num_documents)]
    read = [(trunk / "my-text" / Path(name).name).read_text() for name in names]
    near = {f"near-{n}": f"{text} and a bit more" for n, text in enumerate(read)}
    other = {f"other-{n}": f"a rate {n} of text in step {n + 7} " * 40 for n in range(60)}
    assert main(measured_again(trunk, "near", 0.1, {**near, **other})) == 0
    plan = load_plan(trunk / "runs" / "near" / "plan.json")
    (drop,) = plan.conduct.corpora["again"].drops
    assert drop.by.get("new", 0) >= 0.6 * len(near), "but for those that are held out again"
    # Held-out text of the run's sources is measured too, so its cost is planned.
    assert {one.domain for one in plan.evaluation} == {"again", "new", "old"}


def test_text_that_would_be_measured_though_the_run_saw_it_begins_no_run(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {path.stem: path.read_text() for path in (trunk / "my-text").iterdir()}
    command = measured_again(trunk, "seen", 0.5, seen)
    assert main(command) == 2
    assert "also held out by source 'again'" in capsys.readouterr().err
    assert not (trunk / "runs" / "seen").exists()


def test_tasks_are_not_called_as_sources_of_the_run_are(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = measured_again(trunk, "named", 0.1, {f"t{n}": f"a rate {n} " * 40 for n in range(20)})
    recipe = (trunk / "named.toml").read_text()
    tasks = 'evaluation = { tasks = { new = { path = "absent.jsonl" } }, '
    (trunk / "named.toml").write_text(recipe.replace("evaluation = { ", tasks))
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "the run that it goes on with has a source 'new'" in told
    assert "absent.jsonl" in told, "beside what else is wrong"


class KilledError(BaseException):
    """Nothing catches it, as nothing does a kill."""


def test_a_branch_that_was_cut_off_never_begins_from_the_base(
    trunk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = trunk / "runs"
    branch = ["branch", str(runs / "trunk"), "--anneal", "256", "--at-step", "10"]

    def killed(*arguments: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", killed)
        with pytest.raises(KilledError):
            main([*branch, "--name", "cut"])
    run = RunFolder(runs / "cut")
    assert run.plan.exists()
    assert run.checkpoints.exists()
    assert main(["train", str(run.path)]) == 2
    assert "goes on from step 10 of another one" in capsys.readouterr().err
    assert main([*branch, "--name", "cut"]) == 0
    assert main([*branch, "--name", "uncut"]) == 0
    assert weights_of(run.path, 12) == weights_of(runs / "uncut", 12)
    assert [record.step for record in run.steps()] == list(range(12))


def test_a_source_is_shown_no_more_often_in_both_than_it_may(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trunk and extension keep below the cap alone, and are above it together."""
    science = load_plan(trunk / "runs" / "trunk" / "plan.json").science
    fewest = min(source.num_windows for source in science.sources)
    # Half of the samples are of each source; the trunk's 14 steps have shown 28 of each.
    tokens = 2 * (4 * fewest - 10) * science.sequence_length
    extend = ["extend", str(trunk / "runs" / "trunk"), "--at-step", "14", "--plan-only"]
    assert main([*extend, "--budget", f"+{tokens}", "--name", "much"]) == 2
    told = capsys.readouterr().err
    assert "the run and what follows it ask" in told
    assert "above its cap of 4" in told
    assert not (trunk / "runs" / "much").exists()


def test_unimax_in_what_follows_counts_what_the_run_has_shown(trunk: Path) -> None:
    """By hand: 28 samples of `new` are shown by step 14, its cap is 38: 10 more, the rest old."""
    science = load_plan(trunk / "runs" / "trunk" / "plan.json").science
    windows = {source.name: source.num_windows for source in science.sources}
    recipe = (trunk / "trunk.toml").read_text()
    (trunk / "even.toml").write_text(
        recipe.replace("{ new = 0.5, old = 0.5 }", '"unimax"').replace(
            'path = "my-text",', f'path = "my-text", max_epochs = {38 / windows["new"]!r},'
        )
    )
    extend = ["extend", str(trunk / "runs" / "trunk"), "--at-step", "14", "--plan-only"]
    more = ["--budget", "+2560", "--recipe", str(trunk / "even.toml"), "--name", "even"]
    assert main([*extend, *more]) == 0
    plan = load_plan(trunk / "runs" / "even" / "plan.json").science
    names = [source.name for source in plan.sources]
    first, then = (dict(zip(names, phase.samples, strict=True)) for phase in plan.phases)
    assert first == {"new": 28, "old": 28}
    assert 9 <= then["new"] <= 10
    assert then["new"] + then["old"] == 80


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a subset that is sized by its length, whose lower layer froze by its gradients."""
    folder = make_reader_folder(tmp_path_factory.mktemp("settled") / "reader")
    (folder / "r.toml").write_text(
        """
name = "r"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 1280 }
batch = { tokens = 128, sequence_length = 32 }
sources.new = { path = "my-text", role = "new", held_out = 0.1, subset = { epochs = 2 } }
sources.old = { path = "my-old-text", role = "replay", held_out = 0.1 }
phases = [{ name = "all", weights = { new = 0.5, old = 0.5 } }]
evaluation = { every_steps = 10, max_bytes_per_domain = 1000, max_answers = 2 }
checkpoints = { every_steps = 2, keep = 20 }
training = { num_threads = 1 }
schedule = { kind = "constant" }
freezing = { kind = "auto", every = 0.2 }
"""
    )
    assert main(["prepare", str(folder / "r.toml")]) == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(settling, "settled_layers", lambda *a, frozen, most: (most, [0.0, 1.0]))
        assert main(["train", str(folder / "r.toml")]) == 0
    assert (folder / "runs" / "r" / "amendments.jsonl").read_text().count("\n") == 1
    return folder


def test_a_run_that_froze_layers_and_shows_a_subset_is_branched(
    settled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = settled / "runs"
    branch = ["branch", str(runs / "r"), "--anneal", "256", "--at-step", "8", "--name", "b"]
    assert main(branch) == 0
    assert "1 from step 4" in " ".join(capsys.readouterr().out.split())
    science = load_plan(runs / "b" / "plan.json").science
    assert science.sources == load_plan(runs / "r" / "plan.json").science.sources
    counts = read_saved_state(runs / "b" / "checkpoints" / "step-00000010").optimizer_steps
    assert set(counts.values()) == {10}
    assert not any(".layers.0." in name for name in counts)
    # And a branch of the branch.
    again = ["branch", str(runs / "b"), "--anneal", "256", "--at-step", "8", "--name", "b2"]
    assert main(again) == 0
    assert weights_of(runs / "b", 10) == weights_of(runs / "b2", 10)


def test_text_that_retention_reads_stays_what_it_was() -> None:
    """No phase shows it, so that the check of what phases show does not see it."""
    memory = ("retention.agem.memory=['old']",)
    only_new = "phases=[{name='all', weights={new=1}}]"
    trunk = plan_of(*INFINITE, only_new, *memory).science
    assert graft(trunk, more_science(*memory), at_step=700).memory == trunk.memory
    other = {**CORPORA, "old": make_corpus_facts("old", "general", num_tokens=500_000)}
    more = plan_of(only_new, *memory, corpora=other).science
    with pytest.raises(PlanError, match=r"sources\.old: retention reads it, and the run"):
        graft(trunk, more, at_step=700)


@pytest.mark.parametrize(
    ("on", "group"),
    [
        ("'new'", "new"),
        ("'replay'", "replay"),
        ("'all'", "all"),
        ("['new', 'qa']", "new"),
        ("['qa']", ["qa"]),
    ],
)
def test_a_divergence_on_a_kind_of_text_goes_on_on_that_kind(
    on: str, group: str | list[str]
) -> None:
    trunk = plan_of(*INFINITE, f"retention.distill.on={on}").science
    distill = continuation.retention_to_go_on_with(trunk).distill
    assert distill is not None
    assert distill.on == group


def test_a_divergence_on_new_text_acts_on_that_of_an_extension() -> None:
    trunk = plan_of(*INFINITE, "retention.distill={}").science
    more = plan_of(
        "budget.tokens=128_000",
        'sources.german={path="g.jsonl", role="new"}',
        "phases=[{name='all', weights={german=1}}]",
        "retention.distill={}",
        corpora={**CORPORA, "german": make_corpus_facts("german")},
    ).science
    distill = graft(trunk, more, at_step=700).retention.distill
    assert distill is not None
    assert distill.on == ["new", "qa", "german"]


def test_an_extension_trains_what_the_run_trains(
    settled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (settled / "r.toml").read_text().replace('"auto", every = 0.2', '"unfreeze"')
    (settled / "other.toml").write_text(
        text + "parameters = { freeze = ['embeddings'] }\nretention = { l2sp = { weight = 1 } }\n"
    )
    extend = ["extend", str(settled / "runs" / "r"), "--budget", "+256", "--recipe"]
    assert main([*extend, str(settled / "other.toml")]) == 2
    told = capsys.readouterr().err
    for key in ("parameters", "freezing", "retention"):
        assert f"{key}: what trains, and how, is the run's" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--at-step", "11"], ["no checkpoint of step 11", "those kept are: 2, 4"]),
        (["--at-step", "4"], ["the rate is not constant at step 4", "steps 8 to 14"]),
        (["--shape", "cosin"], ["did you mean cosine?"]),
        (
            ["--weights", "new=x,old", "--final-lr", "3"],
            ["'new=x' is not a share", "'old' is not a share", "not a learning rate"],
        ),
        (["--weights", "web=1"], ["the run has no source 'web'", "name some of: new, old"]),
        (["--weights", "new=0"], ["all shares are zero"]),
        (["--weights", "new=1,old=1,new=2"], ["'new' has two shares"]),
        (["--final-lr", "0"], ["never reaches 0"]),
        (["--final-lr", "0.1"], ["0.1 is above the rate that is annealed, 0.0055"]),
        (["--name", "a/b"], ["cannot be a run's name"]),
        (["--name", "trunk"], ["another run is there already"]),
        (["--anneal", "many"], ["not a count"]),
        (["--anneal", "5"], ["do not pay for one step"]),
    ],
)
def test_mistakes_are_told(
    trunk: Path, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = [] if "--anneal" in arguments else ["--anneal", "256"]
    assert main(["branch", str(trunk / "runs" / "trunk"), *first, *arguments]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told


def test_mistakes_of_an_extension_are_told(trunk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extend = ["extend", str(trunk / "runs" / "trunk"), "--budget", "+512"]
    assert main([*extend, "--anneal", "512"]) == 2
    assert "takes the whole extension" in capsys.readouterr().err
    assert main([*extend, "--anneal", "256", "--final-lr", "0.1"]) == 2
    assert "0.1 is above the rate that is annealed, 0.0055" in capsys.readouterr().err
    assert main([*extend, "-o", "seed=3", "--final-lr", "1e-4"]) == 2
    told = capsys.readouterr().err
    assert "none is given" in told
    assert "add --anneal" in told


def test_a_place_that_cannot_be_written_is_told(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trunk / "runs" / "taken").write_text("a file")
    branch = ["branch", str(trunk / "runs" / "trunk"), "--anneal", "256", "--name", "taken"]
    assert main(branch) == 1
    told = capsys.readouterr().err
    assert "taken cannot be written" in told
    assert "unexpected fault" not in told


def test_a_damaged_recipe_is_told(trunk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = RunFolder(trunk / "runs" / "trunk").recipe
    content = recipe.read_bytes()
    recipe.write_text('{"name": 3}')
    try:
        assert main(["branch", str(trunk / "runs" / "trunk"), "--anneal", "256"]) == 2
    finally:
        recipe.write_bytes(content)
    assert "it is not the recipe that the run was planned from" in capsys.readouterr().err


def test_a_damaged_checkpoint_begins_no_branch(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = trunk / "runs" / "trunk" / "checkpoints" / "step-00000012" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    branch = ["branch", str(trunk / "runs" / "trunk"), "--anneal", "256", "--at-step", "12"]
    try:
        assert main([*branch, "--name", "damaged"]) == 2
    finally:
        weights.write_bytes(content)
    assert "model.safetensors was altered" in capsys.readouterr().err
    assert not (trunk / "runs" / "damaged").exists()
