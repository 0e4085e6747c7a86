"""The benchmark reads figures rightly, refuses what it cannot do, and leaves nothing running."""

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from house import NBS, ROOT
from services import until

SCRIPT = ROOT / "scripts" / "benchmark.py"
NO_TOOLS = not (shutil.which("wrk") and shutil.which("taskset") and sys.platform == "linux")
needs_wrk = pytest.mark.skipif(NO_TOOLS, reason="there is no wrk, or no taskset, or no Linux")


def imported(name):
    """A module of the scripts."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


benchmark, figures, load = map(imported, ("benchmark", "figures", "load"))
RECORD = json.loads(figures.RECORD.read_text(encoding="utf-8"))


def run(*words, **environment):
    command = [sys.executable, SCRIPT, *map(str, words)]
    env = os.environ | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_what_wrk_printed_is_read():
    text = "Running 2s test\n  10 requests\nresult 3000 1500000 0 2 480 9100\n"
    assert load.read_wrk(text) == load.Load(rate=2000, p50=0.48, p99=9.1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("unable to connect to 127.0.0.1:9 Connection refused\n", "no result: unable to connect"),
        ("", "it printed nothing"),
        ("result 30 1000000 7 0 1 2\n", "7 of 30 replies were not 200"),
        ("result 0 1000000 0 16 0 0\n", "16 connections broke or waited too long, 0 replies"),
    ],
)
def test_a_load_that_was_not_answered_is_no_figure(text, told):
    with pytest.raises(load.LoadError, match=told):
        load.read_wrk(text)


QUESTIONS = {contestant.name: contestant.question for contestant in benchmark.CONTESTANTS}
REPLIES = {
    "service": {"predictions": [0, 1]},
    "mlserver": {"outputs": [{"name": "predict", "data": [0, 1]}]},
    "mlflow": {"predictions": [0, 1]},
    "bentoml": [0, 1],
    "litserve": {"output": [0, 1]},
    "vetiver": {"predict": [0, 1]},
}
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.1, 2.8, 4.7, 1.2]]


@pytest.mark.parametrize("name", REPLIES)
def test_right_answers_are_accepted_and_wrong_ones_named(name):
    reply = json.dumps(REPLIES[name]).encode()
    benchmark.compare(200, reply, QUESTIONS[name], ROWS, [0, 1])
    with pytest.raises(load.LoadError, match=r"wrong answer to \[6.1, 2.8, 4.7, 1.2\]"):
        benchmark.compare(200, reply, QUESTIONS[name], ROWS, [0, 2])
    with pytest.raises(load.LoadError, match="status 500: oh"):
        benchmark.compare(500, b"oh", QUESTIONS[name], ROWS, [0, 1])
    with pytest.raises(load.LoadError, match="not understood"):
        benchmark.compare(200, b"what?", QUESTIONS[name], ROWS, [0, 1])


def test_fewer_answers_than_rows_are_wrong_answers():
    with pytest.raises(load.LoadError, match="wrong answer to 2 rows"):
        benchmark.compare(200, b'{"predictions": [0]}', QUESTIONS["service"], ROWS, [0, 1])


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_bodies_of_a_load_hold_every_row(name):
    rows = [[float(i), 0.5, 0.5, 0.5] for i in range(150)]
    for each in (1, 100):
        text = "".join(QUESTIONS[name].bodies(rows, each))
        assert "\n" not in text
        assert all(f"{i}.0" in text for i in range(150))


def test_contestants_are_chosen_in_their_own_order():
    assert benchmark.chosen("constant, service") == ["service", "constant"]
    assert benchmark.chosen("growth") == ["growth"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("servce", "there is no contestant 'servce'; did you mean service?"),
        ("service,xyzzy", "no contestant 'xyzzy'; there are service, constant, "),
        (" ,", "name at least one of service, "),
    ],
)
def test_an_unknown_contestant_is_refused_with_what_there_is(text, told):
    with pytest.raises(argparse.ArgumentTypeError, match=told):
        benchmark.chosen(text)
    done = run("--only", text)
    assert done.returncode == 2
    assert told.partition(";")[0] in done.stderr


def test_every_contestant_has_a_program_and_nothing_else_is_there():
    programs = {c.program for c in benchmark.CONTESTANTS if c.program}
    assert programs == {path.name for path in benchmark.PROGRAMS.glob("*.py")}


def test_the_help_tells_all_options():
    done = run("--help")
    assert done.returncode == 0
    options = ("--quick", "--only", "--environments", "--minutes", "--record", "--to")
    assert [option for option in options if option not in done.stdout] == []


def test_a_record_of_some_contestants_is_refused():
    done = run("--record", "--only", "service")
    assert done.returncode == 2
    assert "a record is of all contestants" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Linux is asked for first")
def test_without_wrk_it_says_how_to_get_it(tmp_path):
    done = run("--quick", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == ("benchmark: wrk is missing; on Debian and Ubuntu: apt-get install wrk\n")


def test_what_cannot_be_installed_is_left_out_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.shutil, "which", lambda name: None)
    answers = [subprocess.CompletedProcess([], 1, "", "a\nno such package\n")]
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *a, **k: answers[0])
    contestant = benchmark.Contestant("x", "X", "x.py", ("a-package",))
    with pytest.raises(load.LoadError, match="cannot be installed: no such package"):
        benchmark.environment(contestant, tmp_path)


@pytest.mark.skipif(NO_TOOLS, reason="there is no taskset, or no Linux")
def test_a_process_that_ends_at_once_is_told_with_its_last_words(tmp_path):
    program = [sys.executable, "-c", "print('one', flush=True); raise SystemExit('no model here')"]
    ended = pytest.raises(load.LoadError, match="it ended: no model here")
    with ended, load.Running(program, tmp_path, 0, load.cores()[0]) as running:
        running.wait("/predict", "{}")


@pytest.mark.skipif(NO_TOOLS, reason="there is no taskset, or no Linux")
def test_nothing_of_a_contestant_is_left_even_if_it_hides(tmp_path):
    hiding = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); "
    child = f"{hiding} time.sleep(60)"
    parent = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], "
        "start_new_session=True).wait()"
    )
    program = [sys.executable, "-c", parent, child]
    with load.Running(program, tmp_path, 0, load.cores()[0]) as running:
        until(lambda: b"1" in running.log.read_bytes())
        everyone = running.family()
        assert len(everyone) == 2
    until(lambda: not any(words and words[0] != "Z" for words in map(load.stat, everyone)))


@needs_wrk
def test_a_short_run_measures_the_service_and_the_constant_reply(tmp_path):
    kept = tmp_path / "record.json"
    done = run("--quick", "--only", "constant,service", "--to", kept)
    assert done.returncode == 0, done.stderr
    record = json.loads(kept.read_text())
    assert list(record["contestants"]) == ["service", "constant"]
    assert (record["left out"], record["growth"], record["rounds"]) == ({}, {}, 1)
    for found in record["contestants"].values():
        assert list(found["loads"]) == list(benchmark.SCENARIOS)
        assert all(rate > 0 for one in found["loads"].values() for rate in one["rate"])
        assert found["start"][0] > 0
        assert found["memory"][0] > 5
    assert "| iris_serve |" in done.stdout
    assert "| constant reply |" in done.stdout


@needs_wrk
def test_ctrl_c_ends_everything(tmp_path):
    kept = tmp_path / "record.json"
    command = [sys.executable, SCRIPT, "--only", "constant,service", "--to", kept]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert any(line.startswith(" 1 ") for line in process.stdout)
        until(lambda: len(load.family(process.pid)) > 1)
        everyone = load.family(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        code = process.wait(30)
    assert code == 130
    until(lambda: not any(words and words[0] != "Z" for words in map(load.stat, everyone)))
    assert not kept.exists()


def test_the_picture_and_the_sentences_are_those_of_the_record():
    assert figures.old(RECORD) == []


def test_the_record_is_of_this_project_and_of_all_that_could_be_measured():
    assert {*RECORD["contestants"], *RECORD["left out"]} >= set(QUESTIONS)
    assert "service" in RECORD["contestants"]
    text = (NBS / "essays" / "benchmark.ipynb").read_text(encoding="utf-8")
    assert RECORD["commit"] in text
