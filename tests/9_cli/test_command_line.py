"""The command line as people expect it: names, options, completion, JSON, files, bars, pruning."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from importlib.metadata import version

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from iris_serve.__main__ import main
from iris_serve.cli.deploy import TARGETS
from iris_serve.model.card import read_card
from iris_serve.registry.registry import Registry, history, open_predictor, promote
from iris_serve.registry.verify import verify
from iris_serve.service.app import create_app
from iris_serve.service.predict import predict_reply

JSON_COMMANDS = [
    ("versions",),
    ("show", "current"),
    ("history",),
    ("verify",),
    ("diff", "1", "current"),
    ("predict", "6.1", "2.8", "4.7", "1.2"),
]


def ask(*words, program="main", typed=None, **environment):
    words = [str(word) for word in words]
    return CliRunner().invoke(main, words, prog_name=program, input=typed, env=environment)


# The name of the program


@pytest.mark.parametrize("name", main.commands)
def test_the_script_is_named_in_all_its_help_and_the_module_nowhere(name):
    for words in ((name, "--help"), ("help", name)):
        shown = ask(*words, program="iris-serve").output
        assert shown.startswith(f"Usage: iris-serve {name} ")
        assert f"iris-serve {name}" in shown.partition("Example")[2]
        assert "python -m" not in shown


def test_the_module_is_named_where_it_was_started():
    shown = ask("versions", "--help", program="python -m iris_serve").output
    assert shown.startswith("Usage: python -m iris_serve versions ")
    assert "python -m iris_serve versions" in shown.partition("Example")[2]
    assert "iris-serve" not in shown


def test_errors_and_hints_name_the_program_as_it_was_started(models, tmp_path):
    words = "promote", "canary", "--models", models
    assert "try 'iris-serve promote" in ask(*words, program="iris-serve").stderr
    assert "try 'python -m iris_serve promote" in ask(*words).stderr
    done = ask("sample", "wine", tmp_path / "wine.csv", program="iris-serve")
    assert "\niris-serve retrain " in done.output


def test_a_usage_error_of_the_script_names_the_script():
    shown = ask("versions", "--modles", "x", program="iris-serve").stderr
    assert shown.startswith("Usage: iris-serve versions ")
    assert "Try 'iris-serve versions --help'" in shown


# Options before the command, and words for help


def test_options_work_before_the_command_and_behind_it(models):
    behind = ask("versions", "--models", models, "--name", "iris")
    assert behind.exit_code == 0
    for words in (
        ("--models", models, "versions"),
        (f"--models={models}", "--name", "iris", "versions"),
        ("--name", "iris", "versions", "--models", models),
    ):
        assert ask(*words).output == behind.output


def test_an_option_behind_the_command_wins_over_one_before_it_and_both_over_the_environment(models):
    assert ask("--models", "none", "versions", "--models", models).exit_code == 0
    assert ask("--models", models, "versions", IRIS_SERVE_MODELS="none").exit_code == 0
    assert ask("--models", "none", "versions", IRIS_SERVE_MODELS=str(models)).exit_code == 1


def test_options_of_serve_work_before_it_and_without_it():
    for words in (("--port", "99999", "serve"), ("--port", "99999"), ("serve", "--port", "99999")):
        done = ask(*words)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert "--port must be a whole number" in done.stderr


def test_an_option_before_a_command_that_lacks_it_is_an_error(models):
    done = ask("--port", "8000", "versions", "--models", models)
    assert done.exit_code == 2
    assert "versions has no option --port" in done.stderr


def test_the_common_options_may_stand_before_commands_that_need_none():
    assert ask("--models", "nowhere", "key", "alice").exit_code == 0


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_shown(word):
    assert ask(word).output.split()[-1] == version("iris_serve")


def test_help_is_a_command_too():
    assert ask("help").output == ask("--help").output
    assert ask("help", "show").output == ask("show", "--help").output
    wrong = ask("help", "shwo")
    assert wrong.exit_code == 2
    assert "No such command 'shwo'" in wrong.stderr


# Completion


def offered(line, **environment):
    *words, last = line.split(" ")
    completer = ShellComplete(main, {}, "iris-serve", "_IRIS_SERVE_COMPLETE")
    return [item.value for item in completer.get_completions(words, last)]


def test_commands_and_options_are_completed(models):
    assert offered("ver") == ["verify", "versions"]
    assert {"--json", "--models", "--name"} <= set(offered("versions --"))
    assert "--port" in offered("--p")
    assert offered("help pru") == ["prune"]


@pytest.mark.parametrize("command", ["show", "promote", "verify", "reproduce", "diff"])
def test_versions_and_aliases_are_completed_from_the_registry(canary, command):
    for line in (f"--models {canary} {command} ", f"{command} --models {canary} "):
        assert offered(line) == ["2", "1", "canary", "current"]
    assert offered(f"{command} --models {canary} ca") == ["canary"]


@pytest.mark.parametrize("command", ["predict", "deploy docker out", "export-manifest out"])
def test_the_option_for_a_version_is_completed_from_the_registry(canary, command):
    line = f"{command} --models {canary} --version "
    assert offered(line) == ["2", "1", "canary", "current"]
    assert offered(line + "cu") == ["current"]


def test_targets_of_deployments_are_completed():
    assert offered("deploy ") == [*TARGETS]
    assert offered("deploy c") == ["cloudrun", "compose"]


def test_names_of_models_and_aliases_are_completed(canary, monkeypatch):
    assert offered(f"versions --models {canary} --name ") == ["iris"]
    assert offered(f"history --models {canary} --alias c") == ["canary", "current"]
    monkeypatch.setenv("IRIS_SERVE_MODELS", str(canary))
    assert offered("predict --version ") == ["2", "1", "canary", "current"]


def test_completion_says_nothing_where_there_is_no_registry_or_the_line_makes_no_sense(
    tmp_path, monkeypatch
):
    assert offered(f"show --models {tmp_path / 'none'} ") == []
    monkeypatch.setenv("IRIS_SERVE_PROT", "1")
    assert offered("show ") == []


@pytest.fixture
def script(tmp_path):
    """The program as pip installs it, in a directory of its own; and an environment with it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "iris-serve"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nfrom iris_serve.__main__ import main\nsys.exit(main())\n"
    )
    path.chmod(0o755)
    search = os.pathsep.join([str(folder), os.environ["PATH"]])
    return os.environ | {"PATH": search, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def bash_offers(script, line):
    """What bash would offer at the end of `line`."""
    program = f"""
        eval "$(iris-serve completion bash)"
        complete -p iris-serve > /dev/null || exit 9
        read -r -a COMP_WORDS <<< '{line}'
        [[ '{line}' == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _iris_serve_completion iris-serve
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    command = ["bash", "--norc", "-c", program]
    done = subprocess.run(command, env=script, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_versions(script, canary):
    assert bash_offers(script, "iris-serve vers") == ["versions"]
    line = f"iris-serve --models {canary} promote "
    assert bash_offers(script, line) == ["2", "1", "canary", "current"]


# JSON


@pytest.mark.parametrize("words", JSON_COMMANDS, ids=lambda words: words[0])
def test_json_is_one_document_on_standard_output_and_nothing_else(models, words):
    done = ask(*words, "--json", "--models", models)
    assert (done.exit_code, done.stderr) == (0, "")
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stdout.isascii()
    assert done.stdout.endswith("}\n")


@pytest.mark.parametrize("words", JSON_COMMANDS, ids=lambda words: words[0])
def test_a_mistake_with_json_leaves_standard_output_empty(tmp_path, words):
    done = ask(*words, "--json", "--models", tmp_path / "none")
    assert (done.exit_code, done.stdout) == (1, "")


def test_versions_as_json_has_the_fields_of_the_api(canary):
    told = json.loads(ask("versions", "--json", "--models", canary).stdout)
    assert (list(told), told["name"]) == (["name", "versions", "aliases"], "iris")
    assert told["aliases"]["canary"] == {"version": 2, "promotions": 1}
    first = told["versions"][0]
    assert (first["version"], first["aliases"], first["served"]) == (1, ["current"], "frozen")
    record = json.loads((canary / "iris" / "1" / "run.json").read_text())
    assert first["run"] == record
    assert first["metrics"]["accuracy"] == read_card(canary / "iris" / "1").metrics.accuracy


def test_versions_as_json_lists_a_damaged_one_with_its_trouble(models):
    (models / "iris" / "1" / "card.json").unlink()
    told = json.loads(ask("versions", "--json", "--models", models).stdout)
    assert "card.json" in told["versions"][0]["trouble"]


def test_history_as_json_holds_every_event(canary):
    told = json.loads(ask("history", "--alias", "canary", "--json", "--models", canary).stdout)
    assert (told["alias"], told["version"], told["promotions"]) == ("canary", 2, 1)
    event = json.loads((canary / "iris" / "aliases" / "canary" / "1.json").read_text())
    assert told["history"] == [event]


def test_verify_as_json_says_ok_or_each_issue_and_keeps_its_exit_code(models):
    well = ask("verify", "--json", "--models", models)
    assert json.loads(well.stdout) == {"name": "iris", "version": None, "ok": True, "issues": []}
    (models / "iris" / "1" / "iris_model.pkl").unlink()
    ill = ask("verify", "1", "--json", "--models", models)
    told = json.loads(ill.stdout)
    assert (ill.exit_code, told["ok"], told["version"], len(told["issues"])) == (1, False, 1, 1)


# predict


TABLE = "sepal_length,sepal_width,petal_length,petal_width\n6.1,2.8,4.7,1.2\n5.1,3.5,1.4,0.2\n"
FILES = {
    "rows.csv": TABLE,
    "rows.txt": TABLE,
    "rows.ndjson": "[6.1, 2.8, 4.7, 1.2]\n[5.1, 3.5, 1.4, 0.2]\n",
    "lines.json": "[6.1, 2.8, 4.7, 1.2]\n[5.1, 3.5, 1.4, 0.2]\n",
    "rows.json": '{"features": [[6.1, 2.8, 4.7, 1.2], [5.1, 3.5, 1.4, 0.2]]}',
}


@pytest.mark.parametrize("name", FILES)
def test_predict_reads_a_file_as_the_service_reads_a_request(models, tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    done = ask("predict", "--file", tmp_path / name, "--models", models)
    assert (done.exit_code, done.output) == (0, '{"prediction": 1}\n{"prediction": 0}\n')
    done = ask("predict", "--json", "--file", tmp_path / name, "--models", models)
    assert (done.exit_code, done.output) == (0, '{"predictions": [1, 0]}\n')


@pytest.mark.parametrize("words", [(), ("-",), ("--file", "-"), ("--format", "csv")])
def test_predict_reads_standard_input(models, words):
    done = ask("predict", *words, "--models", models, typed=TABLE)
    assert done.output == '{"prediction": 1}\n{"prediction": 0}\n'


def test_predict_answers_a_file_in_detail_as_the_service_does(models, tmp_path):
    reply = predict_reply(
        TABLE.encode(), open_predictor(Registry(models)), "text/csv", "detail=true"
    )
    done = ask("predict", "--detail", "--json", "--models", models, typed=TABLE)
    assert json.loads(done.stdout) == json.loads(reply.body)
    lines = ask("predict", "--detail", "--models", models, typed=TABLE).stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [(each["label"], each["version"]) for each in told] == [
        ("versicolor", "1"),
        ("setosa", "1"),
    ]


def test_predict_has_no_limit_of_rows(models):
    done = ask("predict", "--models", models, typed="6.1,2.8,4.7,1.2\n" * 20_000)
    assert done.output.count("\n") == 20_000


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (TABLE.replace("4.7", "long"), "line 2: [2] (petal_length): must be a number"),
        (TABLE.replace(",0.2", ""), "line 3: "),
        ("[6.1, 2.8, 4.7, 1.2]\n[5.1, 3.5, 1.4, null]\n", "line 2: [3] (petal_width)"),
        ("[6.1, 2.8, 4.7, 1.2]\n[5.1, \n", "line 2: "),
        ('{"features": [[6.1, 2.8, "x", 1.2]]}', "features[0][2] (petal_length)"),
        ("", "standard input: it is empty"),
    ],
)
def test_an_error_in_a_file_names_the_line_and_the_field_and_nothing_is_answered(
    models, typed, told
):
    done = ask("predict", "--models", models, typed=typed)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr


def test_an_error_in_a_file_names_the_file(models, tmp_path):
    (tmp_path / "rows.csv").write_text("1,2\n")
    done = ask("predict", "--file", tmp_path / "rows.csv", "--models", models)
    assert (done.exit_code, "rows.csv: line 1: " in done.stderr) == (2, True)
    assert ask("predict", "--file", tmp_path / "none.csv", "--models", models).exit_code == 2


def test_values_and_a_file_are_not_mixed(models, tmp_path):
    (tmp_path / "rows.csv").write_text(TABLE)
    done = ask("predict", "1", "--file", tmp_path / "rows.csv", "--models", models)
    assert (done.exit_code, "name one of the two" in done.stderr) == (2, True)


# diff


def test_diff_shows_what_differs_and_how_many_answers_do(three):
    shown = ask("diff", 1, 3, "--models", three)
    assert shown.exit_code == 0
    rows = {line[: line.index("  ")]: line.split()[-2:] for line in shown.output.splitlines()[1:-1]}
    assert rows["parameters seed"] == ["0", "2"]
    assert rows["parameters n_estimators"] == ["1", "3"]
    assert "metrics accuracy" in rows
    assert not any(name.startswith("libraries") for name in rows)
    assert re.search(r"^\d+ of \d+ answers differ: golden rows", shown.output, re.M)
    assert "libraries numpy" in ask("diff", 1, 3, "--all", "--models", three).output


def test_diff_as_json_has_both_values_of_every_field(three):
    told = json.loads(ask("diff", 1, 3, "--json", "--models", three).stdout)
    cards = [read_card(three / "iris" / name) for name in "13"]
    assert told["versions"] == [1, 3]
    assert told["parameters"]["max_depth"] == [2, 2]
    assert told["metrics"]["accuracy"] == [card.metrics.accuracy for card in cards]
    assert told["data"]["sha256"] == [card.data.sha256 for card in cards]
    assert told["libraries"]["numpy"] == [card.versions["numpy"] for card in cards]
    answers = [dict(zip(c.golden.rows, c.golden.answers, strict=True)) for c in cards]
    shared = answers[0].keys() & answers[1].keys()
    differ = sum(answers[0][row] != answers[1][row] for row in shared)
    assert told["answers"]["golden"] == {"rows": len(shared), "differ": differ}
    assert differ > 0


def test_diff_knows_the_held_out_rows_on_which_a_version_was_judged(canary):
    told = json.loads(ask("diff", 1, 2, "--json", "--models", canary).stdout)
    verdict = json.loads((canary / "iris" / "2" / "run.json").read_text())["verdict"]
    assert [each["differ"] for each in told["answers"]["held_out"]] == [
        exam["flipped"] for exam in verdict["exams"]
    ]
    assert (
        json.loads(ask("diff", 2, 1, "--json", "--models", canary).stdout)["answers"]
        == (told["answers"])
    )


# prune


def test_prune_removes_what_is_old_and_was_never_meant(three):
    listed = ask("prune", "--keep", 1, "--dry-run", "--models", three)
    assert Registry(three).versions() == [1, 2, 3]
    assert "version 2 is to be removed" in listed.output
    assert "version 1 stays: current has meant it" in listed.output
    done = ask("prune", "--keep", 1, "--yes", "--models", three)
    assert (done.exit_code, "version 2 was removed" in done.output) == (0, True)
    assert Registry(three).versions() == [1, 3]
    assert verify(Registry(three)) == []


def test_prune_never_removes_what_an_alias_has_meant_once(three):
    registry = Registry(three)
    for number in (2, 3):
        promote(registry, number, "a try", alias="canary")
    ask("prune", "--keep", 1, "--yes", "--models", three)
    assert registry.versions() == [1, 2, 3]
    assert len(history(registry, "canary")) == 2


def test_prune_removes_nothing_if_a_history_cannot_be_read(three):
    promote(Registry(three), 3, "a try", alias="canary")
    (three / "iris" / "aliases" / "canary" / "1.json").write_text("{")
    done = ask("prune", "--keep", 1, "--yes", "--models", three)
    assert (done.exit_code, Registry(three).versions()) == (1, [1, 2, 3])


@pytest.mark.parametrize("typed", ["n\n", "\n", ""])
def test_prune_asks_and_takes_silence_for_a_no(three, typed):
    done = ask("prune", "--keep", 1, "--models", three, typed=typed)
    assert (done.exit_code, Registry(three).versions()) == (1, [1, 2, 3])
    done = ask("prune", "--keep", 1, "--models", three, typed="y\n")
    assert (done.exit_code, Registry(three).versions()) == (0, [1, 3])


def test_a_prune_that_is_killed_leaves_no_half_version_and_the_next_one_cleans_up(three):
    program = """
import os, signal, sys
from pathlib import Path
from unittest.mock import patch
from iris_serve.cli.prune import remove_version
from iris_serve.registry.registry import Registry
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
with patch("iris_serve.model.atomic.shutil.rmtree", kill):
    remove_version(Registry(Path(sys.argv[1])), 2)
"""
    done = subprocess.run([sys.executable, "-c", program, three], check=False)
    assert done.returncode == -signal.SIGKILL
    assert Registry(three).versions() == [1, 3]
    assert verify(Registry(three)) == []
    hidden = [name for name in os.listdir(three / "iris") if name.startswith(".staged")]
    assert hidden
    assert ask("prune", "--keep", 1, "--yes", "--models", three).exit_code == 0
    assert not [name for name in os.listdir(three / "iris") if name.startswith(".staged")]


# retrain, versions, directories, bars


def test_a_parameter_may_be_one_word_with_a_sign_or_two(tmp_path, monkeypatch):
    seen = []

    def stop(models, parameters, *_):
        seen.append(parameters)
        raise click.exceptions.Exit(0)

    monkeypatch.setattr("iris_serve.training.retrain.retrain", stop)
    words = "retrain", "-p", "seed=7", "-p", "n_estimators", "2", "-p", "min_score=accuracy 0.5"
    assert ask(*words, "--models", tmp_path / "models").exit_code == 0
    (found,) = seen
    assert (found.seed, found.n_estimators, found.min_score) == (7, 2, "accuracy 0.5")
    done = ask("retrain", "-p", "seeed=7", "--models", tmp_path / "models")
    assert (done.exit_code, "did you mean 'seed'?" in done.output) == (2, True)


def test_the_list_of_versions_has_a_header_above_its_columns(models):
    head, first = ask("versions", "--models", models).output.splitlines()
    assert head.split() == ["version", "made", "score", "aliases", "why", "served"]
    for word, cell in (("score", "accuracy"), ("aliases", "current"), ("served", "frozen")):
        assert head.index(word) == first.index(cell)


READERS = [
    *[("versions",), ("show", "1"), ("promote", "1"), ("rollback",), ("history",), ("verify",)],
    *[("reproduce", "1"), ("diff", "1", "2"), ("prune", "--keep", "1"), ("predict", "1")],
    *[("deploy", "docker", "out"), ("export-manifest", "out")],
]


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_a_directory_that_is_not_there_is_an_error_with_the_right_example(tmp_path, words):
    missing = tmp_path / "my models"
    done = ask(*words, "--models", missing, program="iris-serve")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"there is no directory {missing}" in done.stderr
    assert f"iris-serve train --models '{missing}'" in done.stderr
    assert not missing.exists()


def on_terminal(words, interrupt=False):
    """The exit code, standard output, and what a terminal shows of standard error in the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "iris_serve", *map(str, words)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=theirs) as run:
        os.close(theirs)
        written = b""
        while True:
            try:
                written += os.read(ours, 10_000)
            except OSError:  # the other end is closed
                break
            if interrupt and b"Executing" in written:
                run.send_signal(signal.SIGINT)
                interrupt = False
        told = run.stdout.read()
    os.close(ours)
    screen = []
    for line in written.decode().replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        screen.append(shown.rstrip())
    return run.returncode, told.decode(), written.decode(), screen


@pytest.mark.parametrize("interrupt", [False, True], ids=["it ends", "it is interrupted"])
def test_the_bar_leaves_nothing_on_a_terminal(tmp_path, interrupt):
    words = "retrain", "-p", "n_estimators=2", "--models", tmp_path / "models"
    code, told, written, screen = on_terminal(words, interrupt)
    assert code == (130 if interrupt else 0), written
    assert "Executing" in written
    assert "Executing" not in told
    assert not any(re.search("Executing|cell", line) for line in screen)


# doctor


def test_doctor_says_ok_or_what_to_do_and_exits_with_0_if_nothing_stops_the_service(models):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = ask("doctor", "--port", port, "--models", models)
    assert done.exit_code == 0, done.output
    lines = [line.split(maxsplit=2) for line in done.output.splitlines()]
    assert {status for status, _, _ in lines} <= {"ok", "note"}
    names = {name for _, name, _ in lines}
    assert {"libraries", "extra", "port", "models", "model", "open", "kernel", "temporary"} == names
    assert all("; " in rest for status, _, rest in lines if status == "note")
    assert f"127.0.0.1 port {port} is free" in done.output
    assert "iris version 1 is current, frozen" in done.output


def test_doctor_exits_with_1_and_names_who_listens_on_the_port(models):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = ask("doctor", "--json", "--port", port, "--models", models)
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"], done.stderr) == (1, False, "")
    (stop,) = [check for check in told["checks"] if check["status"] == "stop"]
    assert (stop["name"], f"--port {port + 1}" in stop["todo"]) == ("port", True)
    if sys.platform == "linux":
        assert f"process {os.getpid()} " in stop["found"]


@pytest.mark.parametrize("path", ["file", "file/models"])
def test_doctor_stops_at_models_that_cannot_be_read(tmp_path, path):
    (tmp_path / "file").touch()
    done = ask("doctor", "--json", "--models", tmp_path / path)
    (stop,) = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "models"]
    assert (done.exit_code, stop["status"]) == (1, "stop")
    assert "--models" in stop["todo"]


def test_doctor_stops_where_the_workers_cannot_share_files(models, tmp_path):
    (tmp_path / "file").touch()
    done = ask("doctor", "--json", "--models", models, "--shared", tmp_path / "file" / "shared")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert (done.exit_code, checks["temporary"]["status"]) == (1, "stop")


def test_doctor_changes_nothing(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    ask("doctor", "--models", tmp_path / "models")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_help_imports_neither_numpy_nor_what_only_doctor_needs():
    code = (
        "import sys; from iris_serve import __main__; "
        "print(*{'numpy', 'sklearn', 'flask', 'urllib.request', 'importlib.metadata'}"
        " & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# What the service answers


def test_json_replies_end_with_a_newline_except_those_whose_bytes_clients_know(models):
    predictor = open_predictor(Registry(models))
    client = create_app(predictor).test_client()
    one, many = [6.1, 2.8, 4.7, 1.2], [[6.1, 2.8, 4.7, 1.2]]
    assert client.post("/predict", json={"features": one}).data == b'{"prediction": 1}'
    ended = [
        client.get("/"),
        client.get("/nowhere"),
        client.post("/predict", json={"features": many}),
        client.post("/predict", json={"features": one[:3]}),
        client.post("/predict?detail=true", json={"features": one}),
    ]
    for reply in ended:
        assert reply.data.endswith(b"}\n")
        assert int(reply.headers["Content-Length"]) == len(reply.data)
