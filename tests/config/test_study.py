"""The file of a study: what its plans, grids and sizes mean, and a sentence for everything that is wrong in one."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchlight.config.study import StudyBudget, StudyOptions
from patchlight.config.study_file import load_study, sizes_of, study_names, study_of, study_of_one
from patchlight.errors import PatchlightError, UsageError
from patchlight.studies.plan import recipe_with

BASE = {"study": {"recipe": "quickstart"}}
TWO = [{"name": "a", "optim": {"lr": 0.1}}, {"name": "b", "optim": {"weight_decay": 0.2}}]


def of(**parts):
    """The study of these parts; a part "study" is laid over the name of the recipe."""
    data = {**parts, "study": {**BASE["study"], **parts.get("study", {})}}
    return study_of(data, "mine", "mine.toml")


def settings_of(study) -> dict[str, dict]:
    return {variant.name: variant.settings for variant in study.variants}


def error_of(**parts) -> str:
    with pytest.raises(UsageError) as caught:
        of(**parts)
    return str(caught.value)


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_each_variant_changes_the_base_alone():
    study = of(base={"train": {"batch_size": 64}, "optim": {"lr": 0.5}}, variants=TWO)
    assert settings_of(study) == {
        "a": {"train.batch_size": 64, "optim.lr": 0.1},
        "b": {"train.batch_size": 64, "optim.lr": 0.5, "optim.weight_decay": 0.2},
    }
    assert [variant.changes for variant in study.variants] == [{"optim.lr": 0.1}, {"optim.weight_decay": 0.2}]
    assert study.baseline == "a"


def test_a_step_of_a_ladder_has_all_before_it():
    third = {"name": "c", "optim": {"lr": 0.3}}
    study = of(study={"plan": "ladder"}, base={"optim": {"lr": 0.5}}, variants=[*TWO, third])
    assert settings_of(study) == {
        "a": {"optim.lr": 0.1},
        "b": {"optim.lr": 0.1, "optim.weight_decay": 0.2},
        "c": {"optim.lr": 0.3, "optim.weight_decay": 0.2},
    }


def test_leave_one_out_takes_each_away_from_all():
    study = of(study={"plan": "leave-one-out"}, base={"train": {"batch_size": 64}}, variants=TWO)
    assert settings_of(study) == {
        "all": {"train.batch_size": 64, "optim.lr": 0.1, "optim.weight_decay": 0.2},
        "without a": {"train.batch_size": 64, "optim.weight_decay": 0.2},
        "without b": {"train.batch_size": 64, "optim.lr": 0.1},
    }
    assert study.baseline == "all"


def test_a_grid_has_every_pair_of_its_values():
    study = of(grid={"model": {"patch_size": [2, 4]}, "data.train_per_class": [50, 1000]})
    assert [variant.name for variant in study.variants] == [
        "patch size 2, train per class 50",
        "patch size 2, train per class 1,000",
        "patch size 4, train per class 50",
        "patch size 4, train per class 1,000",
    ]
    assert study.variants[1].settings == {"model.patch_size": 2, "data.train_per_class": 1000}
    assert study.variants[1].point == study.variants[1].changes == study.variants[1].settings
    assert study.grid == {"model.patch_size": (2, 4), "data.train_per_class": (50, 1000)}
    assert study.baseline == "patch size 2, train per class 50"


def test_with_variants_a_grid_has_each_of_them_at_each_point():
    study = of(variants=TWO, grid={"model": {"drop_path_rate": [0.0, 0.5]}}, study={"baseline": "b"})
    assert [(v.name, v.member, v.point) for v in study.variants] == [
        ("a, drop path rate 0", "a", {"model.drop_path_rate": 0.0}),
        ("a, drop path rate 0.5", "a", {"model.drop_path_rate": 0.5}),
        ("b, drop path rate 0", "b", {"model.drop_path_rate": 0.0}),
        ("b, drop path rate 0.5", "b", {"model.drop_path_rate": 0.5}),
    ]
    assert study.baseline == "b", "the member, at every point of the grid"


def test_a_study_without_variants_has_one_of_its_own_name():
    assert [(v.name, v.settings) for v in of().variants] == [("mine", {})]
    one = study_of_one("quickstart", (3, 4), {"optim.lr": 0.1})
    assert [(v.name, v.recipe, v.settings) for v in one.variants] == [("quickstart", "quickstart", {"optim.lr": 0.1})]
    assert one.options.seeds == (3, 4)


def test_what_lies_over_what():
    """The base, over it the size's, over it what the caller sets, over it the variant's, over it the grid's."""
    data = {
        **BASE,
        "base": {"train": {"batch_size": 1, "epochs": 1}, "optim": {"lr": 1.0}, "model": {"depth": 1}},
        "variants": [{"name": "a", "model": {"depth": 3}, "optim": {"lr": 3.0}}],
        "grid": {"model": {"depth": [4]}},
        "sizes": {"cpu": {"base": {"train": {"batch_size": 2}, "optim.lr": 2.0}}, "gpu": {}},
    }
    study = study_of(data, "mine", "mine.toml", settings={"train.epochs": "9", "train.batch_size": "3"})
    assert study.variants[0].settings == {
        "train.batch_size": "3",
        "train.epochs": "9",
        "optim.lr": 3.0,
        "model.depth": 4,
    }
    config = recipe_with(study.variants[0].recipe, study.variants[0].settings)
    assert (config.train.batch_size, config.train.epochs, config.optim.lr, config.model.depth) == (3, 9.0, 3.0, 4)
    assert (study.size, study.default_size) == ("cpu", "cpu")
    bare = study_of(data, "mine", "mine.toml", size="gpu")
    assert bare.variants[0].settings["train.batch_size"] == 1


def test_a_size_replaces_budget_variants_and_grid_and_changes_the_rest():
    data = {
        "about": {"title": "one", "cost": "much"},
        "study": {"recipe": "quickstart", "seeds": [5], "test": "all"},
        "budget": {"epochs": 3, "why": "so"},
        "variants": TWO,
        "sizes": {
            "whole": {},
            "small": {
                "about": {"cost": "little"},
                "study": {"seeds": [7, 8]},
                "budget": {"steps": 10},
                "variants": [{"name": "c"}],
                "grid": {"model": {"depth": [1, 2]}},
            },
        },
    }
    small = study_of(data, "mine", "mine.toml", size="small")
    assert (small.about.title, small.about.cost) == ("one", "little")
    assert (small.options.seeds, small.options.test) == ((7, 8), "all")
    assert (small.budget.steps, small.budget.epochs) == (10, None)
    assert small.why == "All variants make equally many updates, so what differs is what an update is worth."
    assert [variant.member for variant in small.variants] == ["c", "c"]
    whole = study_of(data, "mine", "mine.toml", size="whole")
    assert whole.why == "so"
    assert len(whole.variants) == 2


def test_options_of_the_caller_are_laid_over_those_of_the_file():
    study = study_of({"study": {"recipe": "quickstart", "seeds": [1]}}, "mine", "m", options={"seeds": [4, 5]})
    assert study.options.seeds == (4, 5)


def test_the_budget_in_words():
    assert StudyBudget(steps=1000).words == "each run trains for 1,000 steps"
    assert StudyBudget(epochs=1).words == "each run trains for 1 epoch"
    assert StudyBudget(epochs=2.5).words == "each run trains for 2.5 epochs"
    assert StudyBudget(time="90s").words == "each run trains for 90s with validation"
    assert StudyBudget(flops=1.5e15).words == "each run trains for 1.5e+15 FLOPs"
    assert StudyBudget().words == "each run trains as long as its recipe says"
    assert StudyBudget(flops=1e3).kind == "flops"


def test_settings_may_stand_in_quotes_and_of_stages():
    study = of(variants=[{"name": "a", "optim.lr": 0.1, "stages": {"2": {"optim": {"lr": 0.3}}}}])
    assert study.variants[0].changes == {"optim.lr": 0.1, "stages.2.optim.lr": 0.3}


def test_recipes_are_files_beside_the_studys(tmp_path, monkeypatch):
    written(tmp_path, "[train]\nepochs = 7\n", "own.toml")
    text = '[study]\nrecipe = "own.toml"\n[[variants]]\nname = "a"\n[[variants]]\nname = "b"\nrecipe = "quickstart"\n'
    path = written(tmp_path, text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = load_study(path)
    assert recipe_with(study.variants[0].recipe, {}).train.epochs == 7
    assert study.variants[1].recipe == "quickstart"
    assert study.name == "mine"
    monkeypatch.chdir(tmp_path)
    assert recipe_with(load_study("mine.toml").variants[0].recipe, {}).train.epochs == 7


def test_a_file_may_begin_with_a_mark_and_end_lines_as_windows_does(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b'\xef\xbb\xbf[study]\r\nrecipe = "quickstart"\r\nseeds = [0]\r\n')
    assert load_study(path).options.seeds == (0,)


@pytest.mark.parametrize("name", study_names())
def test_the_studies_that_come_along_have_words_and_sizes(name):
    sizes = sizes_of(name)
    assert sizes[0] == "cpu", "the first is the default, and everyone has a CPU"
    for size in sizes:
        study = load_study(name, size)
        assert study.about.title.endswith("?")
        assert study.about.question
        assert study.about.source
        assert study.budget.why
        assert len(study.options.seeds) >= 3
        for variant in study.variants:
            recipe_with(variant.recipe, variant.settings)


def table_of_errors() -> dict[str, tuple[dict, str]]:
    return {
        "part": ({"variant": []}, "mine.toml: unknown part [variant]; did you mean 'variants'?"),
        "field": ({"study": {"sead": [1]}}, "mine.toml: study: unknown field 'sead'; did you mean 'seeds'?"),
        "budget field": ({"budget": {"step": 1}}, "mine.toml: budget: unknown field 'step'; did you mean 'steps'?"),
        "section": ({"base": {"optin": {"lr": 1}}}, "mine.toml: base: unknown section 'optin'; did you mean 'optim'?"),
        "no section": (
            {"base": {"epochs": 1}},
            "mine.toml: base: 'epochs' is no setting; write its section before it, as in train.epochs",
        ),
        "of a variant": (
            {"variants": [{"name": "a", "lr": 1}]},
            "mine.toml: variant 1: 'lr' is no setting; write its section before it, as in train.lr",
        ),
        "two budgets": (
            {"budget": {"steps": 5, "time": "1m"}},
            "mine.toml: budget has steps and time; every run has one budget, so keep one of them",
        ),
        "names": (
            {"variants": [{"name": "a"}, {"name": " a "}]},
            "mine.toml: two variants are called 'a'; give each another name",
        ),
        "no name": ({"variants": [{}]}, 'mine.toml: variant 1 needs a name: name = "+ AdamW"'),
        "name of lines": ({"variants": [{"name": "a\nb"}]}, 'mine.toml: variant 1 needs a name: name = "+ AdamW"'),
        "baseline": (
            {"study": {"baseline": "c"}, "variants": TWO},
            "mine.toml: study.baseline: no variant 'c'; known: a, b",
        ),
        "seeds": ({"study": {"seeds": [1, 1]}}, "mine.toml: study.seeds must be different numbers, as in [0, 1, 2]"),
        "no seeds": ({"study": {"seeds": []}}, "mine.toml: study.seeds must be different numbers, as in [0, 1, 2]"),
        "negative": (
            {"study": {"seeds": [-1]}},
            "mine.toml: study.seeds must be a list of numbers that are at least 0, and one is -1",
        ),
        "shared": (
            {"study": {"plan": "leave-one-out"}, "variants": [TWO[0], {**TWO[0], "name": "b"}]},
            "mine.toml: variants 'a' and 'b' both set optim.lr, so leaving one out would not take it away; set it in "
            "one of them",
        ),
        "no variants": (
            {"study": {"plan": "ladder"}},
            "mine.toml: study.plan is ladder, and there are no [[variants]]; add them",
        ),
        "recipe of a step": (
            {"study": {"plan": "ladder"}, "variants": [{"name": "a", "recipe": "vit-tiny"}]},
            "mine.toml: variant 1: a variant of the plan 'ladder' begins with study.recipe; leave out its recipe",
        ),
        "no recipe": ({"study": {"recipe": ""}}, "mine.toml: study.recipe is missing; name the recipe"),
        "grid": ({"grid": {"model": {"depth": 3}}}, "mine.toml: grid: model.depth must be a list of values"),
        "grid twice": ({"grid": {"model": {"depth": [1, 1]}}}, "mine.toml: grid: model.depth has a value twice"),
        "list": ({"about": [1]}, "mine.toml: 'about' is a table; write [about] with its fields below"),
        "table": ({"variants": {"name": "a"}}, "mine.toml: variants are tables; write [[variants]] with a name and"),
        "size": ({"sizes": {"cpu": 3}}, "mine.toml: sizes: 'cpu' is a table; write [sizes.cpu] with its fields below"),
        "size in size": ({"sizes": {"cpu": {"sizes": {}}}}, "mine.toml: sizes.cpu: unknown part [sizes]; known: about"),
        "lease": ({"study": {"lease": "soon"}}, 'mine.toml: study.lease must be a time such as "90s"'),
        "plan": (
            {"study": {"plan": "all"}},
            "mine.toml: study.plan cannot be 'all'; known: each, ladder, leave-one-out",
        ),
        "quotes": (
            {"base": {"optim.lr": 1.0, "optim": {"lr": 2.0}}},
            "mine.toml: base: optim.lr is set twice, with and without quotes; leave one out",
        ),
        "stage": (
            {"base": {"stages": [{"optim": {"lr": 1}}]}},
            "mine.toml: base: a stage's setting is written with the stage's number, as in stages.1.optim.lr = 0.001",
        ),
    }


@pytest.mark.parametrize("case", table_of_errors())
def test_an_error_names_the_file_the_field_and_the_fix(case):
    parts, message = table_of_errors()[case]
    assert error_of(**parts).startswith(message)


def test_too_many_runs_are_refused_before_they_are_laid_out():
    """Of this grid there would be ten thousand million variants."""
    grid = {"model": {name: [*range(1, 101)] for name in ("depth", "num_heads", "embed_dim", "patch_size", "img_size")}}
    message = "mine.toml has 30,000,000,000 runs, and the most are 10,000; make its grid smaller, or name fewer seeds"
    assert error_of(grid=grid) == message
    assert len(of(grid={"model": {"depth": [*range(1, 3334)]}}).variants) == 3333
    assert "has 10,002 runs" in error_of(grid={"model": {"depth": [*range(1, 3335)]}})


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(UsageError, match=r"no study 'lader'; did you mean 'ladder'\? \(or give a TOML file\)"):
        load_study("lader")
    with pytest.raises(UsageError, match=r"no file '.*none\.toml'"):
        load_study(tmp_path / "none.toml")
    path = tmp_path / "mine.toml"
    path.write_bytes('[study]\nrecipe = "naïve"\n'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"mine\.toml is not text in UTF-8, as TOML is; save it in that encoding"):
        load_study(path)
    with pytest.raises(UsageError, match=r"mine\.toml is not valid TOML"):
        load_study(written(tmp_path, "[study\n"))
    with pytest.raises(UsageError, match=r"mine\.toml has no size 'gpu'; it has one size"):
        load_study(written(tmp_path, '[study]\nrecipe = "quickstart"\n'), "gpu")
    with pytest.raises(UsageError, match=r"ladder\.toml has no size 'gpv'; did you mean 'gpu'\?"):
        load_study("ladder", "gpv")
    with pytest.raises(UsageError, match="no study ''"):
        load_study("")


KEYS = st.sampled_from(
    [
        *(
            "about",
            "study",
            "budget",
            "base",
            "variants",
            "grid",
            "sizes",
            "cpu",
            "optim",
            "train",
            "stages",
            "1",
            "lr",
        ),
        *("name", "recipe", "plan", "seeds", "epochs", "time", "optim.lr", "model.depth", "title", "a.b.c", ".", ""),
        *(field for field in StudyOptions.__dataclass_fields__),
    ]
)
ODD = st.one_of(
    st.none().map(lambda _: datetime.date(2020, 1, 1)),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["ladder", "leave-one-out", "each", "quickstart", "none", "90s", "all", "a"]),
)
VALUES = st.recursive(
    ODD, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4))
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=5)


@given(
    data=st.dictionaries(KEYS, VALUES | TABLES | st.lists(TABLES, max_size=3), max_size=5),
    study=TABLES,
    variants=st.lists(st.dictionaries(KEYS, VALUES, max_size=3).map(lambda table: {"name": "a", **table}), max_size=3),
)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # of a machine that is busy
)
def test_whatever_stands_in_a_file_it_is_a_study_or_a_sentence(data, study, variants):
    refused = []
    for parts in (data, {**data, "study": {**study, "recipe": "quickstart"}, "variants": variants}):
        try:
            made = study_of(parts, "mine", "mine.toml")
            for variant in made.variants:
                recipe_with(variant.recipe, variant.settings)
        except PatchlightError as error:
            refused.append(error)
    assert all(type(error) is UsageError and "\n" not in str(error) for error in refused)
