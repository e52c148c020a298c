"""Experiment files: what is refused (all of it at once), and what an arm's changes come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewarm.comparison.arms import arms_of, order_seed
from rewarm.comparison.experiment import Experiment, read_experiment
from rewarm.comparison.metrics import KINDS, kind_of, metric_problem
from rewarm.comparison.registration import claims_of
from rewarm.errors import RecipeError

RECIPE = """\
name = "shared"
base = { path = "bases/{seed}", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget = { tokens = "10M" }
sources.new = { path = "new.jsonl", role = "new" }
sources.old = { path = "old.jsonl", role = "general", held_out = 0.02 }
phases = [{ name = "all", weights = { new = 1.0 } }]
schedule = { peak_lr = "pretraining.peak", warmup_fraction = 0.1 }
"""
EXPERIMENT = """\
name = "x"
hypothesis = "Something happens."
recipe = "recipe.toml"
seeds = [3, 5]
control = "a"
primary = [{ metric = "forgetting", expect = "lower" }]
arms.a = {}
arms.b.set.schedule.peak_lr = 1e-4
"""


def read(folder: Path, text: str) -> Experiment:
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "e.toml").write_text(text)
    return read_experiment(folder / "e.toml").experiment


def problems_of(folder: Path, text: str) -> dict[str, str]:
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "e.toml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        arms_of(read_experiment(folder / "e.toml"))
    return {problem.where: f"{problem.what} → {problem.fix}" for problem in caught.value.problems}


def arms(folder: Path, text: str):  # type: ignore[no-untyped-def]
    read(folder, text)
    return {arm.name: arm for arm in arms_of(read_experiment(folder / "e.toml"))}


def test_defaults(tmp_path: Path) -> None:
    experiment = read(tmp_path, EXPERIMENT)
    assert experiment.seed_list == (3, 5)
    assert experiment.pairs() == [("b", "a", {})]
    assert (experiment.run.mode, experiment.noise_floor) == ("sequential", False)
    assert read(tmp_path, EXPERIMENT.replace("[3, 5]", "4")).seed_list == (1, 2, 3, 4)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """\
name = "not a name"
hypothesis = ""
recipe = "recipe.toml"
seeds = [1, 1]
control = "c"
noise_flor = true
primary = [
  { metric = "forgeting", expect = "lower" },
  { metric = "held_out", expect = "equal" },
  { metric = "adaptation", expect = "smaller" },
  { metric = "mean_loss", expect = "lower", within = 0.1 },
  { metric = "held_out.new", expect = "not_higher" },
  { metric = "held_out.old", expect = "not_lower" },
  { metric = "answers.qa", expect = "not_higher", within = 0 },
  { metric = "chat.qa", expect = "not_lower", within = inf },
  { metric = "task.copa", expect = "not_lower", within = 2 },
]
contrasts = [{ arm = "d" }, { arm = "a", against = "a", expect = { nothing = "lower" } }]
arms.a = {}
arms.noise-floor = {}
run = { mode = "screen", sbatch = ["partition"] }
""",
    )
    for where, words in {
        "name": "must be letters",
        "hypothesis": "at least 1 character",
        "seeds": "each of them once",
        "noise_flor": "did you mean 'noise_floor'?",
        "primary[0].metric": "did you mean 'forgetting'?",
        "primary[1].metric": "name it, e.g. held_out.new",
        "primary[1].within": "nothing is equal to the last digit",
        "primary[2].expect": "'lower', 'higher', 'equal', 'not_higher' or 'not_lower'",
        "primary[3].within": "no meaning with expect = 'lower'",
        "primary[4].within": "say by how much it may be higher",
        "primary[5].within": "say by how much it may be lower",
        "primary[6].within": "greater than 0",
        "primary[7].within": "finite",
        "primary[8].within": "0.02 are two points",
        "control": "no arm is called 'c' → name one of: a, noise-floor",
        "contrasts[0].arm": "no arm is called 'd'",
        "contrasts[1]": "held against itself",
        "contrasts[1].expect.nothing": "not among the primary metrics",
        "arms.noise-floor": "the control's copy is called so",
        "run.mode": "'sequential', 'processes', 'slurm' or 'ray'",
        "run.sbatch": "not an option of sbatch",
    }.items():
        assert words in found[where], (where, found)


@pytest.mark.parametrize("mode", ["", 'mode = "sequential", '])
def test_workers_of_runs_that_go_one_after_another_are_told(mode: str, tmp_path: Path) -> None:
    found = problems_of(tmp_path, EXPERIMENT + f"run = {{ {mode}workers = 4 }}\n")
    assert found["run.workers"].startswith("it is 4, and runs go one after another")
    assert read(tmp_path, EXPERIMENT + f"run = {{ {mode}workers = 1 }}\n").run.workers == 1


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        ("equal", "nothing is equal to the last digit"),
        ("not_higher", "not higher at all"),
        ("not_lower", "not lower at all"),
    ],
)
def test_a_contrast_that_expects_a_margin_needs_one(expect: str, why: str, tmp_path: Path) -> None:
    contrast = f'contrasts = [{{ arm = "b", expect = {{ forgetting = "{expect}" }} }}]\n'
    text = EXPERIMENT.replace("arms.a", contrast + "arms.a")
    assert why in problems_of(tmp_path, text)["primary[0].within"]
    text = text.replace('expect = "lower" }', 'expect = "lower", within = 0.1 }')
    assert read(tmp_path, text).pairs() == [("b", "a", {"forgetting": expect})]
    # Which of two margins it would be of cannot be told while an expectation is misspelt.
    found = problems_of(tmp_path, text.replace(f'"{expect}"', '"not higher"'))
    assert list(found) == ["contrasts[0].expect.forgetting"]


def test_exploratory_contrasts_decide_nothing(tmp_path: Path) -> None:
    some = """
contrasts = [{ arm = "b" }, { arm = "c", exploratory = true }]
arms.c = {}
arms.a"""
    text = EXPERIMENT.replace("\narms.a", some)
    experiment = read(tmp_path, text)
    assert experiment.pairs() == [("b", "a", {})]
    assert experiment.explored() == [("c", "a")]
    # What is only told is a claim too: that it is no test is fixed before the runs.
    written = read_experiment(tmp_path / "e.toml")
    claims = claims_of(written, arms_of(written))
    assert claims["exploratory"] == [["c", "a"]]
    read(tmp_path, EXPERIMENT)
    written = read_experiment(tmp_path / "e.toml")
    assert "exploratory" not in claims_of(written, arms_of(written))
    expects = 'exploratory = true, expect = { forgetting = "lower" } }'
    found = problems_of(tmp_path, text.replace("exploratory = true }", expects))
    assert "held against no expectation" in found["contrasts[1].expect"]
    found = problems_of(tmp_path, text.replace('"b" }', '"b", exploratory = true }'))
    assert "none would decide on the hypothesis" in found["contrasts"]


@pytest.mark.parametrize("key", ["hypothesis", "primary", "seeds", "control", "recipe"])
def test_what_is_claimed_must_be_there(tmp_path: Path, key: str) -> None:
    text = "".join(f"{line}\n" for line in EXPERIMENT.splitlines() if not line.startswith(key))
    assert "is missing" in problems_of(tmp_path, text)[key]


def test_mistakes_of_all_arms_are_told_together(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        EXPERIMENT
        + """\
arms.c = { set.schedule.peek_lr = 1e-4, without = ["schedule.nothing"] }
arms.d = { recipe = "other.toml" }
arms.e = { set.seed = 4, set.name = "e" }
arms.f.set = { "phases[3].weights" = { new = 1.0 }, budget.tokens = -1 }
""",
    )
    assert "did you mean 'peak_lr'?" in found["arms.c: schedule.peek_lr"]
    assert "the recipe has no 'schedule.nothing'" in found["arms.c.without"]
    assert "cannot be read" in found["arms.d.recipe"]
    assert "every run of a comparison gets its own" in found["arms.e.set.seed"]
    assert "every run of a comparison gets its own" in found["arms.e.set.name"]
    assert "nothing there" in found["arms.f.set.phases.3.weights"]
    assert "-1" in found["arms.f: budget.tokens"]


def test_a_mistake_of_the_recipe_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(RECIPE.replace("warmup_fraction", "warm_fraction"))
    found = problems_of(tmp_path, EXPERIMENT.replace("recipe.toml", "bad.toml"))
    assert list(found) == ["every arm: schedule.warm_fraction"]


def test_changes_go_into_sections_and_replace_values(tmp_path: Path) -> None:
    made = arms(
        tmp_path,
        EXPERIMENT
        + """\
[arms.c]
without = ["schedule.warmup_fraction"]
[arms.c.set]
schedule.final_lr = "peak/7"
sources.old.held_out = 0.5
sources.qa = { path = "qa.jsonl", role = "qa", question_field = "q", answer_field = "a" }
"phases[0].weights" = { old = 1.0 }
optimizer = { weight_decay = 0.0 }
""",
    )
    recipe = made["c"].recipe(3)
    assert recipe.phases[0].weights == {"old": 1.0}  # replaced, not merged
    assert (recipe.sources["old"].held_out, recipe.sources["old"].path) == (0.5, "old.jsonl")
    assert recipe.sources["qa"].role == "qa"
    assert str(recipe.schedule.final_lr) != str(made["a"].recipe(3).schedule.final_lr)
    assert (recipe.schedule.warmup_fraction, made["a"].recipe(3).schedule.warmup_fraction) == (
        0.0,
        0.1,
    )
    assert (recipe.optimizer.weight_decay, recipe.optimizer.betas) == (0.0, (0.9, 0.95))
    # The shared tree is nobody's to change.
    assert made["a"].recipe(3).phases[0].weights == {"new": 1.0}


def test_seeds_are_shared_and_mark_the_base(tmp_path: Path) -> None:
    made = arms(tmp_path, EXPERIMENT.replace("control", "noise_floor = true\ncontrol"))
    assert list(made) == ["a", "b", "noise-floor"]
    for seed in (3, 5):
        runs = {name: arm.recipe(seed) for name, arm in made.items()}
        assert runs["a"].seed == runs["b"].seed == seed
        assert runs["noise-floor"].seed == order_seed(seed) != seed
        assert {recipe.base.path for recipe in runs.values()} == {f"bases/{seed}"}
        assert runs["a"].name == f"a-seed-{seed}"
    assert order_seed(3) != order_seed(5)
    # A/A: nothing but the seed (and the name) is another one.
    left_out = {"name", "seed"}
    copy, control = made["noise-floor"].recipe(3), made["a"].recipe(3)
    assert copy.model_dump(exclude=left_out) == control.model_dump(exclude=left_out)


def test_a_recipe_may_stand_in_the_file(tmp_path: Path) -> None:
    text = EXPERIMENT.replace('recipe = "recipe.toml"\n', "") + "[recipe]\n" + RECIPE
    made = arms(tmp_path, text)
    assert made["b"].recipe(3).budget.tokens == 10_000_000
    assert made["b"].folder == tmp_path


def test_an_arm_may_have_another_recipe(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.toml").write_text(RECIPE.replace("10M", "20M"))
    made = arms(tmp_path, EXPERIMENT + 'arms.c.recipe = "sub/other.toml"\n')
    assert made["c"].recipe(3).budget.tokens == 20_000_000
    assert made["c"].folder == tmp_path / "sub"


def test_claims_are_what_results_hang_on(tmp_path: Path) -> None:
    made = arms(tmp_path, EXPERIMENT + "arms.c = { set.training.num_threads = 3 }\n")
    assert made["c"].claim() == made["a"].claim()
    assert made["b"].claim() != made["a"].claim()


def test_names_of_metrics() -> None:
    for name, kind in KINDS.items():
        assert kind_of(f"{name}.web.v2" if kind.by_subject else name) is kind
        subject = "arc_easy acc" if name.startswith("harness") else "new"
        assert metric_problem(f"{name}.{subject}" if kind.by_subject else name) is None
    told = metric_problem("harness.arc_easy")
    assert told == (
        "'arc_easy' of lm-evaluation-harness has several figures",
        "name one, e.g. harness.arc_easy acc",
    )
    for wrong in ("stability_gap", "forgetting.old", "held_out.", "loss", ""):
        assert metric_problem(wrong) is not None


def test_what_is_no_experiment(tmp_path: Path) -> None:
    for text, words in (("name = ", "not valid TOML"), ("\0", "not valid TOML")):
        (tmp_path / "e.toml").write_text(text)
        with pytest.raises(RecipeError, match=words):
            read_experiment(tmp_path / "e.toml")
    with pytest.raises(RecipeError, match="the experiment cannot be read"):
        read_experiment(tmp_path / "nothing.toml")
    (tmp_path / "e.toml").write_text(EXPERIMENT + 'x = "hf_' + "a" * 30 + '"\n')
    with pytest.raises(RecipeError, match="access token"):
        read_experiment(tmp_path / "e.toml")
