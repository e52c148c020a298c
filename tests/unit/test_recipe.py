"""A recipe tells every mistake at once, with the field, the value and the remedy."""

from pathlib import Path

import pytest

from rewarm.errors import RecipeError
from rewarm.recipe.load import load_recipe, parse_recipe
from rewarm.recipe.phases import PhaseRecipe
from rewarm.recipe.records import TaskRecipe
from rewarm.recipe.schedule import LrExpression
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.units import format_bytes, format_count, format_duration, parse_count

RECIPE = """
name = "x"
[base]
path = "base"
[base.pretraining]
peak_lr = 1e-3
[sources.web]
path = "a.jsonl"
role = "general"
[sources.qa]
path = "qa.jsonl"
role = "qa"
[[phases]]
name = "general"
weights = { web = 1.0 }
until = { lr_below = "start/5" }
[[phases]]
name = "qa"
weights = { web = 9, qa = 1 }
[budget]
tokens = "3M"
"""


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides=overrides)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def test_defaults_are_those_of_reuse() -> None:
    recipe = parse_recipe(RECIPE)
    assert recipe.budget.tokens == 3_000_000
    assert str(recipe.schedule.peak_lr) == "pretraining.final"
    assert str(recipe.schedule.final_lr) == "peak/100"
    assert recipe.schedule.warmup_fraction == 0
    assert recipe.optimizer.betas == (0.9, 0.95)


def test_overrides_reach_tables_and_lists() -> None:
    recipe = parse_recipe(
        RECIPE,
        overrides=[
            "budget.tokens=10M",
            "phases.1.weights.qa=3",
            "sources.web.held_out=0.05",
            "base.path=org/model",
            'sources.web.path=["a", "b"]',
        ],
    )
    assert recipe.budget.tokens == 10_000_000
    assert recipe.phases[1].weights == {"web": 9, "qa": 3}
    assert recipe.sources["web"].held_out == 0.05
    assert recipe.base.path == "org/model"
    assert recipe.sources["web"].path == ["a", "b"]


def test_an_override_that_fits_nowhere_is_told() -> None:
    assert problems_of(RECIPE, "zz", "phases.7.name=3", "= 4") == [
        "-o zz: an override is key=value\n    → e.g. -o budget.tokens=10M",
        "-o phases.7.name=3: there is nothing at 'phases.7.name'\n"
        "    → see the recipe for its keys",
        "-o = 4: an override is key=value\n    → e.g. -o budget.tokens=10M",
    ]


def test_an_unknown_key_names_its_neighbour() -> None:
    assert problems_of(RECIPE.replace("peak_lr", "peek_lr")) == [
        "base.pretraining.peek_lr: no such key\n    → did you mean 'peak_lr'?"
    ]
    (found,) = problems_of(RECIPE, "budget.tokns=4")
    assert found.startswith("budget.tokns: no such key")
    assert "'tokens'" in found
    (found,) = problems_of(RECIPE, "zzz=4")
    assert "known here: name, preset, shift, seed" in found


def test_tasks_are_called_as_nothing_else_is() -> None:
    given = (
        'evaluation.tasks={qa={path="a.jsonl"}, quiz={path="b.jsonl"}}',
        'evaluation.harness.tasks=["web", "quiz", "arc_easy"]',
    )
    assert problems_of(RECIPE, *given) == [
        "evaluation.tasks.qa: a source is called 'qa' too, and figures go by name\n"
        "    → give the task another name",
        "evaluation.harness.tasks: a source is called 'web' too, and figures go by name\n"
        "    → give the source another name",
        "evaluation.harness.tasks: a local task is called 'quiz' too, and figures go by name\n"
        "    → give the local task another name",
    ]


def test_all_problems_are_told_at_once() -> None:
    text = RECIPE.replace('role = "general"', 'held_out = -1\nrle = "x"').replace('"3M"', '"3.5"')
    found = problems_of(text)
    assert [problem.split(":")[0] for problem in found] == [
        "sources.web.role",
        "sources.web.held_out",
        "sources.web.rle",
        "budget.tokens",
    ]
    assert "'3.5' is not a whole number" in found[3]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("{ web = 1.0 }", "{ web = -1.0 }"), "the weight of 'web' is -1.0; it must be 0 or more"),
        (("{ web = 1.0 }", "{ web = nan }"), "should be a finite number"),
        (("{ web = 1.0 }", "{ web = 0 }"), "all weights are zero"),
        (("{ web = 1.0 }", "{ web = 1, qa = 1e-9 }"), "'qa' is 1e-09, below 1/65,536"),
        (("{ web = 1.0 }", "{ wob = 1 }"), "no source is called 'wob'\n    → name one of: qa, web"),
        (('"start/5"', '"start/0"'), "divides by zero"),
        (('"start/5"', '"begin/5"'), "'begin/5' is not a learning rate"),
        (('until = { lr_below = "start/5" }', "until = {}"), "give exactly one of lr_below"),
        (('until = { lr_below = "start/5" }', ""), "phase 'general' never ends"),
        (('name = "qa"\nweights', 'name = "general"\nweights'), "two phases are called 'general'"),
        (("web = 9, qa = 1 }", "web = 9 }\nuntil = { fraction = 0.5 }"), "leave `until` out there"),
        (('name = "x"', 'name = "a/../b"'), "must be letters, digits"),
        (('role = "qa"', 'role = "qa"\nmax_epochs = 9'), "say why in max_epochs_reason"),
        (('role = "qa"', 'role = "qa"\nquestion_field = "q"'), "go together"),
        (('tokens = "3M"', 'tokens = "-3M"'), "is not a count"),
        (('tokens = "3M"', "tokens = 0"), "is not a positive number"),
        (("[base]", '[schedule]\npeak_lr = "peak/2"\n[base]'), "refers to itself"),
        (("[base]", "[schedule]\npeak_lr = 0\n[base]"), "nothing would be learned"),
        (("[base]", "[optimizer]\nbetas = [0.9, 1.0]\n[base]"), "must lie in [0, 1)"),
        (('path = "base"', 'path = "base"\ntoken = "hf_' + "a" * 30 + '"'), "an access token"),
    ],
)
def test_a_bad_value_is_told(change: tuple[str, str], told: str) -> None:
    assert change[0] in RECIPE
    assert any(told in problem for problem in problems_of(RECIPE.replace(*change)))


def test_a_file_that_is_no_recipe_is_told(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        return str(caught.value)

    absent = told(tmp_path / "absent.toml")
    assert "cannot be read (No such file or directory)\n    → check the path, or write" in absent
    assert "cannot be read (Is a directory)\n    → give a file: this is a folder" in told(tmp_path)
    bad = tmp_path / "bäd recipe.toml"
    bad.write_bytes(b"name = '\xff'")
    assert "not valid UTF-8 at byte 8" in told(bad)
    bad.write_text("x = [")
    assert "not valid TOML" in told(bad)
    bad.write_text("x = " + "[" * 100_000)
    assert "not valid TOML" in told(bad)


@pytest.mark.parametrize(
    ("value", "count"),
    [("300M", 300_000_000), ("0.3k", 300), ("2T", 2 * 10**12), (7, 7), ("1_0", 10)],
)
def test_counts_are_understood(value: int | str, count: int) -> None:
    assert parse_count(value) == count


@pytest.mark.parametrize("value", ["", "M", "1.5", "1e9", -1, True, "3 MB", 0])
def test_what_is_no_count_is_refused(value: int | str) -> None:
    with pytest.raises(ValueError, match=r"is not a"):
        parse_count(value)


def test_learning_rates_read_as_they_are_written() -> None:
    for text in ("peak/100", "pretraining.final", "start*0.5", "0.0003", "pretraining.peak/2"):
        parsed = LrExpression.model_validate(text)
        assert LrExpression.model_validate(str(parsed)) == parsed


def test_quantities_read_well() -> None:
    assert [format_count(n) for n in (0, 999, 1500, 3e8, 2e9)] == ["0", "999", "1.5k", "300M", "2B"]
    assert [format_duration(s) for s in (1.25, 59.4, 185, 25_320, 270_000)] == [
        "1.2 s",
        "59 s",
        "3 min 05 s",
        "7 h 02 min",
        "3 d 03 h",
    ]
    assert format_bytes(1536) == "1.5 KiB"
    assert format_bytes(1_034_000) == "1010 KiB"
    assert format_count(999_600) == "1000k"
    assert format_count(104_857) == "105k"


def test_fields_overrides_and_contradictions_are_told_at_once() -> None:
    told = problems_of(
        RECIPE.replace("qa = 1 }", "qa = 1, books = 1 }"),
        "seed=true",
        "batch.mask_documents=yes",
        "sources.web.path=3",
        "base.pretraining.final_lr=1e-2",
        "phases[0].weights={web = 1e308, qa = 1e308}",
        "hardware.flops_per_second=1e-300",
        "training.num_threads=100000",
        "nonsense",
    )
    places = [problem.partition(":")[0] for problem in told]
    assert sorted(places) == sorted(set(places))
    text = "\n".join(told)
    for part in (
        "-o nonsense: an override is key=value",
        "seed: true is not what belongs here",
        "batch.mask_documents: 'yes' is neither true nor false",
        "sources.web.path: 3: Input should be a valid string",
        "base.pretraining: final_lr = 0.01 is above peak_lr = 0.001",
        "phases[0].weights: the weights sum to more than a number can hold",
        "hardware.flops_per_second: 1e-300",
        "training.num_threads: 100000",
        "phases[1].weights.books: no source is called 'books'",
    ):
        assert part in text
    assert len(told) == 9


@pytest.mark.parametrize(
    ("override", "where"),
    [("schedule.peak_lr=2020-01-01", "schedule.peak_lr"), ("seed=12:30:00", "seed")],
)
def test_a_date_is_told_as_it_was_written(override: str, where: str) -> None:
    (told,) = problems_of(RECIPE, override)
    assert told.startswith(f"{where}: {override.partition('=')[2]} is a date or a time of day")


def test_an_override_may_name_a_phase_as_messages_do() -> None:
    recipe = parse_recipe(RECIPE, overrides=["phases[1].weights.qa=3"])
    weights = recipe.phases[1].weights
    assert isinstance(weights, dict)
    assert weights["qa"] == 3


def test_an_override_holds_one_value_and_no_secret() -> None:
    (told,) = problems_of(RECIPE, "seed=1\nname='other'")
    assert "it holds more than one value" in told
    token = "hf_" + "a" * 30
    (told,) = problems_of(RECIPE, f"base.revision={token}")
    assert told.startswith("-o base.revision: it holds what looks like an access token")
    assert token not in told


@pytest.mark.parametrize("digits", ["9" * 5000, '"' + "9" * 5000 + '"'])
def test_numbers_of_thousands_of_digits_are_told(digits: str) -> None:
    (told,) = problems_of(RECIPE.replace('"3M"', digits))
    assert "not valid TOML" in told or "is not a count" in told
    assert len(told) < 400
    (told,) = problems_of(RECIPE, f"budget.tokens={digits}")
    assert "budget.tokens" in told
    assert "is not a count" in told


def test_a_window_advances_by_a_hundredth_at_least() -> None:
    (told,) = problems_of(RECIPE, "evaluation.stride_fraction=1e-308")
    assert "evaluation.stride_fraction: 1e-308" in told


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbf" + RECIPE.encode())
    assert load_recipe(tmp_path / "r.toml").name == "x"


SOURCES = {
    "text": 'path = "a.jsonl"',
    "tokens": 'path = "a.bin"\nformat = "tokens"',
    "chat": 'path = "a.jsonl"\nformat = "chat"',
    "sampled": "rehearse = { tokens = 1000 }",
    "base-loss": 'path = "a.jsonl"\nkeep = { lowest = "base-loss", share = 0.5 }',
    "classifier": 'path = "a.jsonl"\n'
    'keep = { highest = "classifier", tokens = 9, reference = "web" }',
    "hub": 'hub = { id = "a/b" }',
    "csv": 'path = "a.csv"\ncsv = { delimiter = ";" }',
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_recipe_as_a_run_keeps_it_is_read_again(kind: str) -> None:
    """`rewarm branch` and `extend` read it: every field is spelt out there."""
    recipe = parse_recipe(f'{RECIPE}[sources.more]\nrole = "replay"\n{SOURCES[kind]}\n')
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_list_s_wrong_items_are_told_once_each() -> None:
    told = problems_of(
        RECIPE + '[sources.more]\npath = "x.jsonl"\nrole = "new"\n'
        '[sources.more.curate]\nquality = ["gopher", "gofer"]\ndecontaminate = ["task", "held"]\n'
    )
    assert all("→ change it (" in problem for problem in told), told
    assert [problem.partition(": ")[0] for problem in told] == [
        "sources.more.curate.quality[1]",
        "sources.more.curate.decontaminate[0]",
        "sources.more.curate.decontaminate[1]",
    ]


def test_what_is_wrong_within_a_field_is_told_with_what_the_field_is() -> None:
    """An item of a list, an entry of a table, and keys of a source that is called as a key is."""
    text = RECIPE.replace("sources.web", "sources.path").replace("web =", "path =")
    tasks = "[evaluation.tasks.kind]\npath = 'x.jsonl'\nnormalise = 'bites'\n"
    told = problems_of(
        text + tasks,
        'sources.path.role="olden"',
        "phases[1].weights.qa=[]",
        "optimizer.betas=[0.9, 'x']",
    )
    fields = {
        "sources.path.role": SourceRecipe.model_fields["role"],
        "phases[1].weights.qa": PhaseRecipe.model_fields["weights"],
        "optimizer.betas[1]": OptimizerRecipe.model_fields["betas"],
        "evaluation.tasks.kind.normalise": TaskRecipe.model_fields["normalise"],
    }
    assert [problem.partition(": ")[0] for problem in told] == list(fields)
    for problem, field in zip(told, fields.values(), strict=True):
        assert field.description
        assert problem.endswith(f"→ change it ({field.description})")
