"""The command line says what it does, refuses what it does not understand, and tells scripts."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from iris_serve.__main__ import main
from iris_serve.registry import Registry, current
from iris_serve.settings import PREFIX, Settings, SettingsError, read_settings


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
    assert all(PREFIX + name.upper() in output for name in Settings.__struct_fields__)


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


def test_retrain_with_a_misspelt_parameter_writes_nothing(tmp_path):
    done = ask("retrain", "-p", "seeed", 7, "--models", tmp_path / "models")
    assert done.exit_code == 2
    assert "did you mean 'seed'?" in done.output
    assert not (tmp_path / "models").exists()


def test_retrain_without_its_extra_says_in_one_line_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("iris_serve.retrain.find_spec", lambda name: None)
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


def test_a_damaged_version_is_not_promoted(models):
    (models / "iris" / "1" / "iris_model.pkl").write_bytes(b"")
    done = ask("promote", 1, "--models", models)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)


def test_options_beat_the_environment_and_the_environment_beats_the_defaults(models):
    row = ("predict", 6.1, 2.8, 4.7, 1.2)
    assert ask(*row, IRIS_SERVE_MODELS=str(models)).exit_code == 0
    assert ask(*row, "--models", models, IRIS_SERVE_MODELS="nowhere").exit_code == 0
    assert ask(*row, IRIS_SERVE_MODELS="nowhere").exit_code == 1


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_a_variable_with_one_letter_missing_is_refused_by_name(name):
    variable = PREFIX + name.upper()
    for i in range(len(PREFIX), len(variable)):
        wrong = variable[:i] + variable[i + 1 :]
        with pytest.raises(SettingsError, match=f"unknown variable {wrong}; did you mean {PREFIX}"):
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
    with pytest.raises(SettingsError, match=rf"{PREFIX}{name.upper()}: .* for example \S+"):
        read_settings({PREFIX + name.upper(): value})
    with pytest.raises(SettingsError, match=rf"--{name}: .* for example \S+"):
        read_settings({}, **{name: value})
