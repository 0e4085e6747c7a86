"""The command line explains itself, tells a mistake in one line, and has exit codes for scripts."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from msgspec.structs import fields
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from iris_serve.__main__ import main
from iris_serve.cli.registry_commands import contract_rows
from iris_serve.cli.settings import ENV_PREFIX, Settings, SettingsError, read_settings
from iris_serve.cli.training_commands import add
from iris_serve.data.contract import Contract, Feature
from iris_serve.data.table import iris
from iris_serve.model.atomic import sha256
from iris_serve.model.card import read_card
from iris_serve.registry.registry import Registry, current, history, promote
from iris_serve.training.parameters import Parameters


def ask(*words, **environment):
    return CliRunner().invoke(main, [str(word) for word in words], env=environment)


@pytest.mark.parametrize("name", main.commands)
def test_every_command_has_help_with_an_example(name):
    done = ask(name, "--help")
    assert done.exit_code == 0
    assert f"python -m iris_serve {name}" in done.output


def test_the_help_names_every_command_and_every_variable():
    output = ask("--help").output
    assert all(name in output for name in main.commands)
    output = ask("serve", "--help").output
    assert all(ENV_PREFIX + name.upper() in output for name in Settings.__struct_fields__)


def test_the_help_of_retrain_lists_every_parameter_with_its_default():
    table = ask("retrain", "--help").output.partition("Parameters:\n")[2]
    listed = re.findall(r"(\w+) .*? \[(.*?)\]", " ".join(table.split()))
    assert dict(listed) == {field.name: str(field.default) for field in fields(Parameters)}
    assert len(listed) == len(fields(Parameters))


def test_no_summary_in_the_help_is_cut_off():
    assert "..." not in ask("--help", COLUMNS="80").output.partition("Commands:")[2]


def test_the_help_does_not_import_the_libraries_of_training():
    code = "import sys; from iris_serve import __main__; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_predict_answers_as_the_service_does(models):
    done = ask("predict", 6.1, 2.8, 4.7, 1.2, "--models", models)
    assert (done.exit_code, done.output) == (0, '{"prediction": 1}\n')


def test_predict_takes_negative_numbers(models):
    done = ask("predict", "-6.1", "-2", "-4.7", "-1e-3", "--models", models)
    assert (done.exit_code, done.output) == (0, '{"prediction": 0}\n')


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("6.1", "2.8", "4.7"), "must hold 4 numbers"),
        (("6.1", "2.8", "4.7", "many"), "features[3] (petal_width): must be a number"),
        (("6.1", "2.8", "4.7", "nan"), "got NaN"),
        (("6.1", "2.8", "4.7", "1e400"), "between -3.4e38 and 3.4e38"),
        (("6.1", "2.8", "4.7", "9" * 5000), "between -3.4e38 and 3.4e38"),
    ],
)
def test_a_wrong_row_is_a_usage_error_in_one_line(models, row, words):
    done = ask("predict", *row, "--models", models)
    assert done.exit_code == 2
    assert words in done.output
    assert done.output.count("\n") == 1


def test_predict_without_any_model_fails_with_1(tmp_path):
    assert ask("predict", 1, 2, 3, 4, "--models", tmp_path / "none").exit_code == 1


def test_train_makes_a_model_only_if_there_is_none(tmp_path):
    first, second = (ask("train", "--models", tmp_path) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "iris_model.pkl" in first.output
    assert "already" in second.output
    assert Registry(tmp_path).versions() == [1]


def test_an_error_of_the_system_names_the_file_and_not_its_number(tmp_path):
    (tmp_path / "models").write_text("mine")
    done = ask("train", "--models", tmp_path / "models")
    assert done.exit_code == 1
    assert done.output == f"Error: {tmp_path / 'models' / 'iris'}: Not a directory\n"
    assert (tmp_path / "models").read_text() == "mine"


def test_a_misspelt_parameter_is_a_usage_error_and_writes_nothing(tmp_path):
    done = ask("retrain", "-p", "seeed", 7, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "did you mean 'seed'?" in done.output
    assert not (tmp_path / "models").exists()


def test_retrain_without_its_extra_says_in_one_line_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("iris_serve.training.runner.find_spec", lambda name: None)
    done = ask("retrain", "--models", tmp_path / "models")
    assert done.exit_code == 1
    assert "pip install 'iris_serve[retrain]'" in done.output
    assert done.output.count("\n") == 1


def test_promote_changes_the_version_that_the_list_marks_as_current(models):
    ask("retrain", "-p", "n_estimators", 1, "-p", "promote", "never", "--models", models)
    assert ask("versions", "--models", models).output.splitlines()[2].startswith("*    1")
    assert ask("promote", 2, "--models", models).exit_code == 0
    lines = ask("versions", "--models", models).output.splitlines()[1:]
    assert [line[0] for line in lines] == ["*", " "]
    assert current(Registry(models)).version == 2


@pytest.fixture
def pair(models):
    """A models directory with two versions, the second one current."""
    shutil.copytree(models / "iris" / "1", models / "iris" / "2")
    record = json.loads((models / "iris" / "1" / "run.json").read_text())
    (models / "iris" / "2" / "run.json").write_text(json.dumps(record | {"version": 2}))
    promote(Registry(models), 2, "a copy")
    return models


def test_a_damaged_version_is_not_promoted(models):
    (models / "iris" / "1" / "iris_model.pkl").write_bytes(b"")
    done = ask("promote", 1, "--models", models)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)


def test_columns_are_aligned_without_tabs(pair):
    ask("promote", 1, "--alias", "canary", "--models", pair)
    lines = ask("versions", "--models", pair).output.splitlines()[1:]
    assert [line[:6] for line in lines] == ["*    2", "     1"]
    assert ["canary" in lines[1], "current" in lines[0]] == [True, True]
    assert len({line.index("accuracy") for line in lines}) == 1
    for words in (("versions",), ("show", 1), ("history",), ("verify",), ("show", 1, "--json")):
        done = ask(*words, "--models", pair)
        assert (done.exit_code, "\t" in done.output) == (0, False)


def test_a_damaged_version_is_listed_with_what_is_wrong(pair):
    (pair / "iris" / "1" / "run.json").unlink()
    lines = ask("versions", "--models", pair).output.splitlines()[1:]
    assert "damaged" in lines[1]
    assert "run.json" in lines[1]
    assert lines[0].startswith("*    2")


def test_show_prints_one_printable_line_for_each_feature_whatever_its_name():
    odd = Contract((Feature("a\nb\x1b[2J", "", 0, 1),), (0, 1), ("no\r", "yes"), (0.5,))
    rows = contract_rows(odd)
    assert [word for word, _ in rows] == ["classes", "feature"]
    assert all(text.isprintable() for _, text in rows)


def test_show_tells_people_and_machines_the_same(pair):
    text = ask("show", "current", "--models", pair).output
    about = json.loads(ask("show", "current", "--json", "--models", pair).output)
    path = pair / "iris" / "2"
    assert about["card"] == json.loads((path / "card.json").read_text())
    assert about["run"] == json.loads((path / "run.json").read_text())
    assert (about["name"], about["version"], about["aliases"]) == ("iris", 2, ["current"])
    assert sorted(about["files"]) == sorted(os.listdir(path))
    for name, file in about["files"].items():
        assert file["sha256"] == sha256((path / name).read_bytes())
        assert f"{name}, {file['bytes']} bytes, sha256 {file['sha256']}" in text
    for words in ("iris 2", "current", "held-out rows", "seed 0", "2 virginica", "petal_width"):
        assert words in text


def test_promote_records_the_reason_and_takes_an_alias_as_a_version(pair):
    assert ask("promote", 1, "--alias", "canary", "--why", "a try", "--models", pair).exit_code == 0
    done = ask("promote", "canary", "--models", pair)
    assert (done.exit_code, done.output) == (0, "iris: current is version 1, was 2\n")
    assert [event.why for event in history(Registry(pair), "canary")] == ["a try"]
    assert (
        ask("predict", "--version", "canary", 6.1, 2.8, 4.7, 1.2, "--models", pair).exit_code == 0
    )


def test_rollback_goes_back_until_there_is_nothing_before(pair):
    done = ask("rollback", "--why", "complaints", "--models", pair)
    assert (done.exit_code, done.output) == (0, "iris: current is version 1 again, was 2\n")
    listed = ask("history", "--models", pair).output.splitlines()
    assert listed[0].endswith("2 -> 1  rollback: complaints")
    assert len(listed) == 3
    done = ask("rollback", "--models", pair)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "nothing stood before" in done.output


def test_verify_prints_each_problem_on_a_line_and_ends_with_1(pair):
    assert ask("verify", "--models", pair).exit_code == 0
    assert ask("verify", "current", "--models", pair).exit_code == 0
    (pair / "iris" / "1" / "iris_model.pkl").unlink()
    (pair / "iris" / "2" / "run.json").write_text("{")
    done = ask("verify", "--models", pair)
    assert (done.exit_code, "Traceback" in done.output) == (1, False)
    assert [line.split(":")[0] for line in done.output.splitlines()] == [
        "version 1",
        "version 2",
    ]
    done = ask("verify", 1, "--models", pair)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", 9), 1),
        (("show", "canary"), 1),
        (("show", "-1"), 2),
        (("show", "../1"), 2),
        (("show",), 2),
        (("promote", 9), 1),
        (("promote", 0), 2),
        (("promote", 1, "--alias", "../x"), 2),
        (("promote", 1, "--alias", "9"), 2),
        (("rollback", "--alias", "canary"), 1),
        (("rollback", "--alias", "A"), 2),
        (("history", "--alias", "canary"), 1),
        (("verify", 9), 1),
        (("verify", "--name", "roses"), 1),
        (("reproduce", 9), 1),
        (("predict", "--version", "canary", 1, 2, 3, 4), 1),
        (("predict", "--version", 9, 1, 2, 3, 4), 1),
        (("add", "x.pkl"), 2),
        (("add", "x.pkl", "--data", "x.csv", "--target", "y"), 2),
        (("add", "x.pkl", "--data", "x.csv", "--target", "y", "--promote", "maybe"), 2),
    ],
)
def test_a_usage_error_is_2_and_a_missing_version_is_1(models, words, code):
    done = ask(*words, "--models", models)
    assert done.exit_code == code
    assert "Error: " in done.output
    assert "Traceback" not in done.output


@pytest.fixture
def own(tmp_path):
    """The arguments of `add` for a user's pickle and CSV file, in which the classes are words."""
    frame = iris().frame()
    frame.to_csv(tmp_path / "flowers.csv", index=False)
    line = LogisticRegression(max_iter=1000).fit(frame.drop(columns="label"), frame["label"])
    joblib.dump(line, tmp_path / "own.pkl")
    return tmp_path / "own.pkl", "--data", tmp_path / "flowers.csv", "--target", "label"


def test_add_makes_a_version_that_answers_with_its_own_classes(tmp_path, own):
    done = ask("add", *own, "--models", tmp_path / "models")
    assert done.exit_code == 0, done.output
    assert "promoted: the first version" in done.output
    done = ask("predict", 6.1, 2.8, 4.7, 1.2, "--models", tmp_path / "models")
    assert done.output == '{"prediction": "versicolor"}\n'
    shown = ask("show", 1, "--models", tmp_path / "models").output
    assert "by add, in" in shown
    assert "it was fitted elsewhere" in shown


def test_add_takes_the_columns_by_name_and_in_order(tmp_path, own):
    named = "sepal_length, sepal_width,petal_length,petal_width"
    done = ask("add", *own, "--features", named, "--models", tmp_path / "models")
    assert done.exit_code == 0, done.output
    turned = "sepal_width,sepal_length,petal_length,petal_width"
    done = ask("add", *own, "--features", turned, "--models", tmp_path / "models")
    assert done.exit_code == 0, done.output
    rows = {
        ask("predict", 6.1, 2.8, 4.7, 1.2, "--version", v, "--models", tmp_path / "models").output
        for v in (1, 2)
    }
    assert len(rows) == 1


def test_add_prints_what_is_wrong_with_a_table_without_a_traceback(tmp_path, own):
    text = (tmp_path / "flowers.csv").read_text().replace("5.1,3.5", "5.1,many", 1)
    (tmp_path / "flowers.csv").write_text(text)
    done = ask("add", *own, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "many" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--target", "lable"), "did you mean label?"),
        (("--features", "sepal_length,nope"), "nope"),
        (("--features", "sepal_length,label"), "it is the target, and so it cannot be a feature"),
        (("--categories", "petal"), "no such column"),
    ],
)
def test_add_judges_the_names_before_it_opens_the_model(tmp_path, own, trap, words, told):
    (tmp_path / "own.pkl").write_bytes(pickle.dumps(trap))
    done = ask("add", *own, *words, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert told in done.output
    assert not Path(trap.marker).exists()


def test_add_says_that_features_leaves_a_column_out_and_not_that_the_table_lacks_it(tmp_path, own):
    done = ask("add", *own, "--features", "sepal_width", "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "and --features names only sepal_width: leave --features away" in done.output
    assert "the table has no such column" not in done.output


def test_every_option_that_add_advises_is_one_that_it_has(tmp_path):
    options = {name for each in add.params for name in each.opts}
    frame = iris().frame().assign(born="1999-01-02", deck=["A", "B", "C"] * 50)
    frame["petal_width"] = frame["petal_width"].astype(object)
    frame.loc[3, "petal_width"] = "narrow"
    frame.to_csv(tmp_path / "t.csv", index=False)
    for names in (["petal_width", "sepal_width"], ["born", "sepal_width"]):
        cells = frame[["sepal_length", "sepal_width"]].set_axis(names, axis=1)  # once numbers
        joblib.dump(LogisticRegression().fit(cells, frame["label"]), tmp_path / "own.pkl")
        words = "--data", tmp_path / "t.csv", "--target", "label", "--models", tmp_path / "models"
        done = ask("add", tmp_path / "own.pkl", *words)
        assert done.exit_code == 2
        advised = re.findall(r"`(\w+)`", done.output)
        assert {f"--{name}" for name in advised} <= options, done.output


def test_add_takes_marks_for_a_missing_value_and_numbers_that_are_names(tmp_path):
    frame = iris().frame().assign(deck=[101, 202, 303] * 50)
    frame["petal_width"] = frame["petal_width"].astype(object)
    frame.loc[3, "petal_width"] = "narrow"
    frame.to_csv(tmp_path / "t.csv", index=False)
    read = pd.read_csv(tmp_path / "t.csv", na_values=["narrow"])
    columns = make_column_transformer(
        (OneHotEncoder(), ["deck"]), (SimpleImputer(), ["petal_width"])
    )
    fitted = make_pipeline(columns, LogisticRegression(max_iter=999)).fit(read, read["label"])
    joblib.dump(fitted, tmp_path / "own.pkl")
    words = "--data", tmp_path / "t.csv", "--target", "label", "--models", tmp_path / "models"
    done = ask("add", tmp_path / "own.pkl", *words)
    assert "see `missing` and `categories`" in done.output
    done = ask("add", tmp_path / "own.pkl", *words, "--missing", "narrow", "--categories", "deck")
    assert done.exit_code == 0, done.output
    width, deck = read_card(tmp_path / "models" / "iris" / "1").contract.features
    assert (deck.kind, deck.values, deck.missing) == ("category", (101, 202, 303), False)
    assert (width.kind, width.missing) == ("number", True)


@pytest.mark.parametrize(
    ("differences", "cure"),
    [
        ([], ""),
        (["data: another file", "library: numpy 1, and not 2"], ""),
        (["result: accuracy differs"], "the estimator has no random_state"),
    ],
)
def test_reproduce_prints_identical_or_each_difference(models, monkeypatch, differences, cure):
    def again(folder, name, version, data, progress, trust):
        assert (folder, name, version, data) == (models, "iris", 1, None)
        assert (progress, trust) == (False, False)
        return SimpleNamespace(identical=not differences, differences=differences, cure=cure)

    monkeypatch.setattr("iris_serve.training.reproduce.reproduce", again, raising=False)
    done = ask("reproduce", "current", "--models", models)
    assert done.exit_code == bool(differences)
    told = [*differences, cure] if cure else differences or ["iris version 1: identical"]
    assert done.output.splitlines() == told


def test_add_names_a_missing_file_as_the_user_wrote_it(tmp_path, own):
    done = ask("add", "my/lost.pkl", *own[1:], "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "'my/lost.pkl' does not exist" in done.output
    assert "Errno" not in done.output
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(("name", "value"), [("cv", 60), ("test_size", 0.00001)])
def test_a_parameter_that_the_table_is_too_small_for_is_a_usage_error(tmp_path, name, value):
    words = ("-p", name, value, "-p", "split", "content")
    done = ask("retrain", *words, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert name in done.output
    assert not (tmp_path / "models").exists()


def test_reproduce_prints_everything_that_is_wrong_with_the_table_it_was_given(tmp_path, own):
    data = tmp_path / "flowers.csv"
    words = ("-p", "data", data, "-p", "target", "label", "-p", "n_estimators", 2)
    assert ask("retrain", *words, "--models", tmp_path / "models").exit_code == 0
    bad = tmp_path / "bad.csv"
    bad.write_text(
        data.read_text().replace("5.1,3.5", "5.1,many", 1).replace("4.9,3.0", "4.9,few", 1)
    )
    done = ask("reproduce", 1, "--data", bad, "--models", tmp_path / "models")
    assert done.exit_code == 1
    assert "data: the file bad.csv cannot be read" in done.output
    assert 'sepal_width | "many"' in done.output
    assert "2   | sepal_width" in done.output


def test_options_override_the_environment_and_the_environment_overrides_defaults(models):
    row = ("predict", 6.1, 2.8, 4.7, 1.2)
    assert ask(*row, IRIS_SERVE_MODELS=str(models)).exit_code == 0
    assert ask(*row, "--models", models, IRIS_SERVE_MODELS="nowhere").exit_code == 0
    assert ask(*row, IRIS_SERVE_MODELS="nowhere").exit_code == 1


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_a_variable_with_a_letter_missing_is_refused_with_the_right_one(name):
    variable = ENV_PREFIX + name.upper()
    for i in range(len(ENV_PREFIX), len(variable)):
        wrong = variable[:i] + variable[i + 1 :]
        if wrong.removeprefix(ENV_PREFIX).lower() in Settings.__struct_fields__:
            continue  # HOSTS without its last letter is HOST
        with pytest.raises(
            SettingsError, match=f"unknown variable {wrong}; did you mean {ENV_PREFIX}"
        ):
            read_settings({wrong: "1"})


def test_a_misspelt_variable_stops_every_command(models):
    for words in (("versions",), ("predict", 1, 2, 3, 4), ("train",), ()):
        done = ask(*words, IRIS_SERVE_PROT="1")
        assert done.exit_code == 2
        assert "did you mean IRIS_SERVE_PORT?" in done.output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "5000.5"),
        ("port", ""),
        ("workers", "0"),
        ("workers", "-1"),
        ("grace", "-1"),
        ("grace", "nan"),
        ("grace", "inf"),
        ("host", ""),
        ("models", ""),
        ("name", ""),
    ],
)
def test_a_wrong_value_of_a_setting_is_refused_by_name_with_an_example(name, value):
    found = r" must be .*; for example \S+"
    with pytest.raises(SettingsError, match=f"^{ENV_PREFIX}{name.upper()}{found}"):
        read_settings({ENV_PREFIX + name.upper(): value})
    with pytest.raises(SettingsError, match=f"^--{name}{found}"):
        read_settings({}, **{name: value})


def test_a_sample_is_written_and_the_command_says_how_to_train_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = ask("sample", "penguins")
    assert done.exit_code == 0
    last = done.output.splitlines()[-1]
    assert last == (
        "python -m iris_serve retrain --name penguins -p data penguins.csv -p target species"
    )
    again = ask("sample", "penguins")
    assert (again.exit_code, again.output.count("\n")) == (1, 1)
    unknown = ask("sample", "pinguins")
    assert unknown.exit_code == 2
    assert "did you mean penguins?" in unknown.output


def test_retrain_says_what_it_takes_the_columns_for_and_what_stands_below_its_baseline(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{i},{rng.random():.3f},{'ab'[int(rng.random() < 0.3)]}" for i in range(1, 201)]
    (tmp_path / "noise.csv").write_text("id,x,kind\n" + "\n".join(lines) + "\n")
    words = ("-p", "data", tmp_path / "noise.csv", "-p", "target", "kind", "-p", "n_estimators", 5)
    command = [sys.executable, "-m", "iris_serve", "retrain", *map(str, words)]
    command += ["--models", str(tmp_path / "models")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()
    assert re.match(r"id +left out +", told[2]) or re.match(r"id +left out +", told[1])
    report = told[-5:]
    assert report[0] == "iris version 1 is worse than no model: see its baseline"
    assert report[1].startswith("iris version 1: ")
    assert report[2].startswith("accuracy 0.")
    assert report[3] == "served frozen"
    assert report[4].startswith("promoted: the first version, although below its baseline: ")
    assert "reading noise.csv" in done.stderr
    assert "Executing" not in done.stderr


def test_show_and_versions_tell_of_a_predicted_number(tmp_path):
    ask("sample", "diabetes", tmp_path / "d.csv")
    from iris_serve.training.retrain import train

    told = Parameters(data=str(tmp_path / "d.csv"), target="progression", n_estimators=5)
    train(tmp_path / "m", told)
    assert "mae " in ask("versions", "--models", tmp_path / "m").output
    shown = ask("show", 1, "--models", tmp_path / "m").output
    assert "mean absolute error" in shown
    assert re.search(r"^number +progression$", shown, re.M)
