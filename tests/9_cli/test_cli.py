"""The command line says what it does, refuses what it does not understand, and tells scripts."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import joblib
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from iris_serve.__main__ import main
from iris_serve.cli.registry_commands import contract_lines
from iris_serve.cli.settings import ENV_PREFIX, Settings, SettingsError, read_settings
from iris_serve.data.contract import Contract, Feature
from iris_serve.data.table import iris
from iris_serve.model.atomic import sha256
from iris_serve.registry.registry import Registry, current, history, promote


def ask(*words, **environment):
    return CliRunner().invoke(main, [str(word) for word in words], env=environment)


@pytest.mark.parametrize("name", main.commands)
def test_every_command_has_help_with_an_example(name):
    done = ask(name, "--help")
    assert done.exit_code == 0
    assert f"python -m iris_serve {name}" in done.output


def test_the_help_lists_every_command_and_every_variable():
    output = ask("--help").output
    assert all(name in output for name in main.commands)
    output = ask("serve", "--help").output
    assert all(ENV_PREFIX + name.upper() in output for name in Settings.__struct_fields__)


def test_no_line_of_the_help_is_cut_off():
    assert "..." not in ask("--help", COLUMNS="80").output.partition("Commands:")[2]


def test_help_does_not_wait_for_scientific_libraries():
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
def test_predict_refuses_a_wrong_row_with_2(models, row, words):
    done = ask("predict", *row, "--models", models)
    assert done.exit_code == 2
    assert words in done.output
    assert done.output.count("\n") == 1


def test_what_is_not_there_is_1(models, tmp_path):
    assert ask("predict", 1, 2, 3, 4, "--models", tmp_path / "none").exit_code == 1
    assert ask("predict", 1, 2, 3, 4, "--version", 9, "--models", models).exit_code == 1
    assert ask("promote", 9, "--models", models).exit_code == 1


def test_train_trains_once(tmp_path):
    first, second = (ask("train", "--models", tmp_path) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "iris_model.pkl" in first.output
    assert "already" in second.output
    assert Registry(tmp_path).versions() == [1]


def test_a_models_directory_that_is_a_file_is_named_without_the_number_of_an_error(tmp_path):
    (tmp_path / "models").write_text("mine")
    done = ask("train", "--models", tmp_path / "models")
    assert done.exit_code == 1
    assert done.output == f"Error: {tmp_path / 'models' / 'iris'}: Not a directory\n"
    assert (tmp_path / "models").read_text() == "mine"


def test_retrain_with_a_misspelt_parameter_writes_nothing(tmp_path):
    done = ask("retrain", "-p", "seeed", 7, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "did you mean 'seed'?" in done.output
    assert not (tmp_path / "models").exists()


def test_retrain_without_its_extra_says_in_one_line_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("iris_serve.training.report.find_spec", lambda name: None)
    done = ask("retrain", "--models", tmp_path / "models")
    assert done.exit_code == 1
    assert "pip install 'iris_serve[retrain]'" in done.output
    assert done.output.count("\n") == 1


def test_promote_points_and_versions_marks_it(models):
    ask("retrain", "-p", "n_estimators", 1, "-p", "promote", "never", "--models", models)
    assert ask("versions", "--models", models).output.startswith("*    1")
    assert ask("promote", 2, "--models", models).exit_code == 0
    lines = ask("versions", "--models", models).output.splitlines()
    assert [line[0] for line in lines] == [" ", "*"]
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


def test_no_command_prints_a_tab_and_columns_are_aligned(pair):
    ask("promote", 1, "--alias", "canary", "--models", pair)
    lines = ask("versions", "--models", pair).output.splitlines()
    assert [line[:6] for line in lines] == ["     1", "*    2"]
    assert ["canary" in lines[0], "current" in lines[1]] == [True, True]
    assert len({line.index("accuracy") for line in lines}) == 1
    for words in (("versions",), ("show", 1), ("history",), ("verify",), ("show", 1, "--json")):
        done = ask(*words, "--models", pair)
        assert (done.exit_code, "\t" in done.output) == (0, False)


def test_a_damaged_version_is_listed_and_says_so(pair):
    (pair / "iris" / "1" / "run.json").unlink()
    lines = ask("versions", "--models", pair).output.splitlines()
    assert "damaged" in lines[0]
    assert "run.json" in lines[0]
    assert lines[1].startswith("*    2")


def test_show_has_one_printable_line_for_each_feature_whatever_it_is_called():
    odd = Contract((Feature("a\nb\x1b[2J", "", 0, 1),), (0, 1), ("no\r", "yes"), (0.5,))
    told = contract_lines(odd)
    assert [word for word, _ in told] == ["classes", "feature"]
    assert all(text.isprintable() for _, text in told)


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


def test_promote_writes_the_reason_and_takes_an_alias_for_a_version(pair):
    assert ask("promote", 1, "--alias", "canary", "--why", "a try", "--models", pair).exit_code == 0
    done = ask("promote", "canary", "--models", pair)
    assert (done.exit_code, done.output) == (0, "iris: current is version 1, was 2\n")
    assert [event.why for event in history(Registry(pair), "canary")] == ["a try"]
    assert (
        ask("predict", "--version", "canary", 6.1, 2.8, 4.7, 1.2, "--models", pair).exit_code == 0
    )


def test_rollback_goes_back_until_nothing_stood_before(pair):
    done = ask("rollback", "--why", "complaints", "--models", pair)
    assert (done.exit_code, done.output) == (0, "iris: current is version 1 again, was 2\n")
    told = ask("history", "--models", pair).output.splitlines()
    assert told[-1].endswith("2 -> 1  rollback: complaints")
    assert len(told) == 3
    done = ask("rollback", "--models", pair)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "nothing stood before" in done.output


def test_verify_prints_each_trouble_on_a_line_and_ends_with_1(pair):
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
        (("add", "x.pkl"), 2),
        (("add", "x.pkl", "--data", "x.csv", "--target", "y"), 2),
        (("add", "x.pkl", "--data", "x.csv", "--target", "y", "--promote", "maybe"), 2),
    ],
)
def test_what_was_asked_wrongly_is_2_and_what_is_not_there_is_1(models, words, code):
    done = ask(*words, "--models", models)
    assert done.exit_code == code
    assert "Error: " in done.output
    assert "Traceback" not in done.output


@pytest.fixture
def own(tmp_path):
    """A pickle and a CSV file, as a user may have them; the classes are words."""
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
    assert done.exit_code == 2
    assert "name them by --features" in done.output


def test_add_prints_the_complaints_about_a_table_without_a_traceback(tmp_path, own):
    text = (tmp_path / "flowers.csv").read_text().replace("5.1,3.5", "5.1,many", 1)
    (tmp_path / "flowers.csv").write_text(text)
    done = ask("add", *own, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "many" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("differences", [[], ["data: another file", "library: numpy 1, and not 2"]])
def test_reproduce_says_identical_or_what_differs(models, monkeypatch, differences):
    def again(folder, name, version, data, progress):
        assert (folder, name, version, data, progress) == (models, "iris", 1, None, False)
        return SimpleNamespace(identical=not differences, differences=differences)

    monkeypatch.setattr("iris_serve.training.reproduce.reproduce", again, raising=False)
    done = ask("reproduce", "current", "--models", models)
    assert done.exit_code == bool(differences)
    assert done.output.splitlines() == (differences or ["iris version 1: identical"])


def test_add_names_a_missing_file_as_the_user_did(tmp_path, own):
    done = ask("add", "my/lost.pkl", *own[1:], "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "'my/lost.pkl' does not exist" in done.output
    assert "Errno" not in done.output
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(("name", "value"), [("cv", 60), ("test_size", 0.00001)])
def test_retrain_refuses_with_2_what_the_table_cannot_bear(tmp_path, name, value):
    done = ask("retrain", "-p", name, value, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert name in done.output
    assert not (tmp_path / "models").exists()


def test_reproduce_prints_all_complaints_about_the_table_that_was_named(tmp_path, own):
    data = tmp_path / "flowers.csv"
    words = ("-p", "data", data, "-p", "target", "label", "-p", "n_estimators", 2)
    assert ask("retrain", *words, "--models", tmp_path / "models").exit_code == 0
    bad = tmp_path / "bad.csv"
    bad.write_text(data.read_text().replace("5.1,3.5", "5.1,many", 1).replace("4.9,3.0", "4.9,", 1))
    done = ask("reproduce", 1, "--data", bad, "--models", tmp_path / "models")
    assert done.exit_code == 1
    assert "data: the file bad.csv cannot be read" in done.output
    assert 'sepal_width | "many"' in done.output
    assert "2   | sepal_width" in done.output


def test_options_beat_the_environment_and_the_environment_beats_the_defaults(models):
    row = ("predict", 6.1, 2.8, 4.7, 1.2)
    assert ask(*row, IRIS_SERVE_MODELS=str(models)).exit_code == 0
    assert ask(*row, "--models", models, IRIS_SERVE_MODELS="nowhere").exit_code == 0
    assert ask(*row, IRIS_SERVE_MODELS="nowhere").exit_code == 1


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_a_variable_with_one_letter_missing_is_refused_by_name(name):
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


def test_what_kubernetes_injects_is_ignored():
    injected = {
        "IRIS_SERVE_PORT": "tcp://10.0.0.1:80",
        "IRIS_SERVE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "IRIS_SERVE_PORT_80_TCP_ADDR": "10.0.0.1",
        "IRIS_SERVE_PORT_80_TCP_PORT": "80",
        "IRIS_SERVE_PORT_80_TCP_PROTO": "tcp",
        "IRIS_SERVE_SERVICE_HOST": "10.0.0.1",
        "IRIS_SERVE_SERVICE_PORT": "80",
        "IRIS_SERVE_SERVICE_PORT_HTTP": "80",
    }
    assert read_settings(injected) == Settings()


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
def test_a_senseless_setting_is_refused_by_name_and_with_an_example(name, value):
    with pytest.raises(SettingsError, match=rf"{ENV_PREFIX}{name.upper()}: .* for example \S+"):
        read_settings({ENV_PREFIX + name.upper(): value})
    with pytest.raises(SettingsError, match=rf"--{name}: .* for example \S+"):
        read_settings({}, **{name: value})
