"""A run takes exactly the parameters that are declared, and says what is wrong with any other."""

import contextlib
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iris_serve.model.train import Params
from iris_serve.training.parameters import (
    FIELDS,
    Parameters,
    check_parameters,
    model_params,
    notebook_parameters,
    parameter_rows,
    parse_value,
)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("seed", "7.0"),
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("seed", "true"),
        ("seed", ""),
        ("seed", "9" * 5000),
        ("n_estimators", "None"),
        ("max_depth", "0"),
        ("test_size", "0"),
        ("test_size", "1"),
        ("test_size", "nan"),
        ("test_size", "inf"),
        ("name", "7"),
        ("name", "../x"),
        ("promote", "maybe"),
        ("cv", "1"),
        ("cv", "-1"),
        ("cv", "101"),
        ("min_score", "1.1"),
        ("min_score", "-0.1"),
        ("min_score", "nan"),
        ("min_score", "high"),
        ("data", "None"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, word):
    with pytest.raises(ValueError, match=f"^{name} must be ") as refused:
        check_parameters({name: parse_value(word, name)})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("seed", (-1, 0, 4294967295, 4294967296)),
        ("n_estimators", (0, 1, 10000, 10001)),
        ("max_depth", (0, 1, 1000, 1001)),
        ("cv", (1, 2, 100, 101)),
        ("min_score", (-1, 0, 1, 2)),
    ],
)
def test_a_value_out_of_bounds_is_answered_with_the_bounds_that_hold(name, bounds):
    below, low, high, above = bounds
    for value in (low, high):
        assert getattr(check_parameters({name: value}), name) == value
    for value in (above, "text"):
        words = rf"^{name} must be .*\b{low} to {high}\b.*, got {value!r}.*; for example \S+"
        with pytest.raises(ValueError, match=words):
            check_parameters({name: value})
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        check_parameters({name: below})


@pytest.mark.parametrize("name", ["max_depth", "min_score", "target", "features"])
def test_none_is_allowed_where_the_message_says_so(name):
    assert getattr(check_parameters({name: None}), name) is None
    with pytest.raises(ValueError, match=rf"^{name} must be .*, or None \("):
        check_parameters({name: []})


def test_a_word_that_is_no_choice_is_answered_with_the_choices():
    with pytest.raises(ValueError, match=r"promote must be auto, never or always .*, got 'yes'"):
        check_parameters({"promote": "yes"})


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("trees", "n_estimators"),
        ("depth", "max_depth"),
        ("folds", "cv"),
        ("random_state", "seed"),
        ("columns", "features"),
        ("label", "target"),
        ("seeed", "seed"),
        ("n_estimator", "n_estimators"),
        ("Test-Size", "test_size"),
    ],
)
def test_a_parameter_by_another_word_is_answered_with_the_right_one(word, meant):
    with pytest.raises(ValueError, match=f"unknown parameter '{word}'; did you mean '{meant}'"):
        check_parameters({word: 1})


def test_every_parameter_says_what_it_is_and_has_an_example_that_is_right():
    rows = parameter_rows()
    assert [name for name, _, _ in rows] == list(FIELDS) == list(Parameters.__struct_fields__)
    assert [str(getattr(Parameters(), name)) for name in FIELDS] == [
        default for *_, default in rows
    ]
    for name, meaning, _ in rows:
        (example,) = FIELDS[name].type.__metadata__[-1].examples
        assert getattr(check_parameters({name: example}), name) == example
        assert example != getattr(Parameters(), name)
        assert len(meaning) > 10


def test_what_the_card_keeps_has_the_same_defaults_and_bounds():
    assert model_params(Parameters()) == Params()
    kept = {field.name: field.type for field in msgspec.structs.fields(Params)}
    for name in kept:
        told = FIELDS[name].type
        bare = told.__origin__ if len(told.__metadata__) == 1 else told
        # A card may also say that a parameter was of no use: to a notebook of one's own.
        unused = name in ("seed", "n_estimators", "min_samples_leaf", "model")
        whole = get_args(kept[name])[0] if unused else kept[name]
        plain = [msgspec.json.schema(kind) for kind in (whole, bare)]
        for schema in plain:
            schema.pop("description", None), schema.pop("examples", None)
        assert plain[0] == plain[1], name


def test_a_column_may_be_called_none_or_like_a_number():
    words = ("None", "null", '"None"', '"null"', "1e5", "7")
    assert [parse_value(w, "target") for w in words] == [None, None, "None", "null", "1e5", "7"]


@settings(max_examples=300, print_blob=True)
@given(name=st.sampled_from(Parameters.__struct_fields__), word=st.text(max_size=30))
def test_any_word_is_a_parameter_or_a_value_error(name, word):
    with contextlib.suppress(ValueError):
        assert isinstance(check_parameters({name: parse_value(word, name)}), Parameters)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("task", "regression"),
        ("rare", "merge"),
        ("unknown", "ignore"),
        ("model", "boosting"),
        ("min_samples_leaf", 0),
        ("min_samples_leaf", 0.5),
        ("max_features", 0),
        ("max_features", 1.5),
        ("max_features", "all"),
        ("class_weight", "balance"),
        ("split", "random"),
        ("n_jobs", -2),
        ("n_jobs", 0),
        ("features", ["a", "b"]),
        ("drop", 7),
    ],
)
def test_a_wrong_value_of_a_newer_parameter_is_answered_with_what_is_allowed(name, given):
    with pytest.raises(ValueError, match=f"^{name} must be ") as refused:
        check_parameters({name: given})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "asked",
    [
        "accuracy 0.8",
        "balanced_accuracy 0.8",
        "log_loss 0.5",
        "mae 3.5",
        "rmse 5",
        "r2 0.7",
        "r2 -1",
    ],
)
def test_a_minimum_that_names_its_metric_is_taken_from_every_side(asked):
    given = check_parameters({"min_score": parse_value(asked, "min_score")})
    assert given.min_score == asked
    assert notebook_parameters({"min_score": asked}).min_score == asked


@pytest.mark.parametrize(
    "asked",
    ["f1 0.8", "mae", "mae -1", "mae nan", "mae inf", "0.8 mae", "accuracy", "log_loss -0.1"],
)
def test_a_minimum_that_is_none_is_answered_with_the_metrics_and_an_example(asked):
    with pytest.raises(ValueError, match=r"^min_score must be .* mae, rmse, r2 and its bound, got"):
        check_parameters({"min_score": asked})


def test_names_with_commas_stand_in_quotes():
    words = {"features": '"a, b",c', "drop": '"d, e", f', "categories": '"g, h"'}
    given = check_parameters({name: parse_value(word, name) for name, word in words.items()})
    params = model_params(given)
    assert params.columns() == ["a, b", "c"]
    assert params.choices().drop == ("d, e", "f")
    assert params.choices().categories == ("g, h",)


def test_marks_of_missing_values_are_added_and_taken_away():
    choices = model_params(Parameters(missing="?, -,not NA")).choices()
    assert (choices.missing, choices.present) == (("?", "-"), ("NA",))


def test_how_many_processors_fit_decides_nothing_and_is_not_kept():
    assert model_params(Parameters(n_jobs=4)) == model_params(Parameters())
