"""A run comes out the same wherever, and by whomever, it is started."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from nbformat import read, write
from nbformat.v4 import new_code_cell, new_notebook
from training_helpers import papermill

import iris_serve
from iris_serve.data.table import iris
from iris_serve.model.card import read_card
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import Registry
from iris_serve.training.parameters import Parameters

ROOT = Path(iris_serve.__file__).parents[1]
CELLS = (
    "from iris_serve.notebook import begin\nrun = begin(globals())\ntable = run.table()",
    "report = run.keep(run.fit(run.split()[0]))",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
    "run.finish()",
)
# Retrains by a short notebook; the words are the notebook and parameters as JSON.
PROGRAM = """
import json, sys
from pathlib import Path
import iris_serve.training.retrain as r
notebook, words = sys.argv[1:]
r.retraining_notebook = lambda: Path(notebook)
print(r.retrain(Path("models"), r.Parameters(**json.loads(words))).version)
"""
TRAP = "raise SystemExit('a module of the working directory was executed')"
NOBODY = 54321  # an uid that no user has
SLOW = pytest.mark.slow  # another value of the same kind


@pytest.fixture
def short(tmp_path):
    """A training notebook that shows nothing but a picture."""
    defaults = msgspec.structs.asdict(Parameters(n_estimators=2))
    first = "\n".join(f"{name} = {value!r}" for name, value in defaults.items())
    cells = [new_code_cell(first, metadata={"tags": ["parameters"]}), *map(new_code_cell, CELLS)]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    path = tmp_path / "short.ipynb"
    write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def run(*command, **environment):
    """Run `command` with `environment` added; a variable that is None is taken away."""
    whole = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    env = {name: value for name, value in whole.items() if value is not None}
    return subprocess.run(command, env=env, capture_output=True, check=False)


def retrained(short, python=(sys.executable,), program=PROGRAM, more=(), **environment):
    """The notebook and the card that a run of `short` has made in `models`."""
    words = json.dumps({"n_estimators": 2} | dict(more))
    done = run(*python, "-P", "-c", program, short, words, **environment)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    path = Registry(Path("models")).path(int(done.stdout))
    assert read_run(path).notebook is not None
    return read(path / "retrain.ipynb", 4), read_card(path)


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def flowers(file):
    """Write the built-in table to `file`, its classes as words."""
    frame = iris().frame().rename(columns={"label": "kind"})
    Path(file).write_text(frame.to_csv(index=False))
    return file


def test_a_kernel_sees_nothing_of_the_callers_habits(short, tmp_path):
    profile = tmp_path / "home" / ".ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "00-mine.py").write_text("DATA_DIR = '/data'")
    (profile / "ipython_config.py").write_text("c.InteractiveShellApp.exec_lines = ['SEED = 5']")
    (tmp_path / "jupyter").mkdir()
    (tmp_path / "startup.py").write_text("MINE = 7")
    notebook, _ = retrained(
        short,
        HOME=str(tmp_path / "home"),
        PYTHONSTARTUP=str(tmp_path / "startup.py"),
        MPLBACKEND="module://backend_interagg",
        JUPYTER_CONFIG_DIR=str(tmp_path / "jupyter"),
        JUPYTER_DEFAULT_PROVISIONER_NAME="somewhere-else",
    )
    assert pictures(notebook) == 1


def as_nobody():
    """The words before a command that run it as a user who isn't known to the system."""
    if os.name != "posix" or os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can run a process as another user, by setpriv")
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    words = ("setpriv", f"--reuid={NOBODY}", "--regid=0", "--clear-groups", *reading)
    if subprocess.run([*words, sys.executable, "-c", ""], check=False).returncode:
        pytest.skip("this interpreter cannot be run by another user")
    return words


OTHER_HOMES = [pytest.param(home, marks=SLOW) for home in ("/", "/nobody/has/this")]


@pytest.mark.parametrize("home", [None, *OTHER_HOMES])
def test_a_user_without_name_and_home_retrains(short, tmp_path, home):
    tmp_path.chmod(0o777)  # the directories above are open to nobody else
    notebook, _ = retrained(short, python=(*as_nobody(), sys.executable), HOME=home)
    assert pictures(notebook) == 1
    assert not Path("~").exists()
    assert (Path("models/iris/1/card.json")).stat().st_uid == NOBODY


def test_an_interpreter_is_named_relative_to_a_directory_above(short, tmp_path, monkeypatch):
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    folder = Path(os.path.relpath(Path(sys.executable).parent, Path.cwd()))
    assert str(folder).startswith("..")
    retrained(short, python=(str(folder / Path(sys.executable).name),))


ODD = "{odd} {0} }{ $HOME $$ 100% 'é'"


def test_the_directory_for_temporary_files_has_an_odd_name(short, tmp_path):
    (tmp_path / ODD).mkdir()
    retrained(short, TMPDIR=str(tmp_path / ODD))
    assert list((tmp_path / ODD).iterdir()) == []


def test_the_environment_is_at_a_path_with_an_odd_name(short, tmp_path):
    place = tmp_path / ODD
    shutil.copytree(ROOT / "iris_serve", place / "iris_serve")
    shutil.copy(short, place)
    (place / "nbs").mkdir()
    shutil.copy(ROOT / "nbs" / "retrain.ipynb", place / "nbs")
    retrained(place / short.name, PYTHONPATH=str(place))


def test_the_data_file_has_an_odd_name(short):
    file = flowers(f"{ODD}.csv")
    _, card = retrained(short, more={"data": file, "target": "kind"})
    assert card.parameters.data == file


def test_a_file_name_that_is_no_text_is_written_with_question_marks(short):
    file = flowers(os.fsdecode(b"caf\xe9.csv"))
    program = PROGRAM.replace("json.loads(words)", "json.loads(words), data=DATA")
    program = f"DATA = {file!a}\n{program}"
    _, card = retrained(short, program=program, more={"target": "kind"})
    assert (card.parameters.data, card.data.source) == ("caf?.csv", "caf?.csv")


def test_a_command_line_takes_a_file_name_that_is_no_text():
    file = flowers(os.fsdecode(b"caf\xe9.csv"))
    words = ("retrain", "-p", "data", file, "-p", "target", "nothing")
    done = run(sys.executable, "-m", "iris_serve", *words)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"nothing" in done.stderr


def test_a_terminal_without_unicode_shows_what_it_can():
    text = Path(flowers("flowers.csv")).read_text()
    table = "sepal_width (Ω)".join(text.split("sepal_width"))
    Path("flowers.csv").write_text(table, encoding="utf-8")
    program = """
from pathlib import Path
from iris_serve.training.retrain import Parameters, train
train(Path("models"), Parameters(data="flowers.csv", target="kind", n_estimators=2))
"""
    assert run(sys.executable, "-c", program).returncode == 0
    for encoding in ("cp1252", "latin-1"):
        words = (sys.executable, "-m", "iris_serve", "show", "1")
        done = run(*words, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"sepal_width (?)" in done.stdout


def test_a_list_from_papermill_is_understood(tmp_path):
    file = flowers("flowers.csv")
    given = ("-y", "{features: [petal_width, petal_length]}", "-p", "data", file)
    done = papermill(tmp_path / "m", "out.ipynb", *given, "-p", "target", "kind")
    assert done.returncode == 0, done.stderr[-2000:]
    card = read_card(Registry(tmp_path / "m").path(1))
    assert card.contract.names == ["petal_width", "petal_length"]
    assert card.parameters.features == "petal_width,petal_length"


@pytest.mark.parametrize(
    "given", ["{features: [1, 2]}", "{featurs: [hue]}", "{target: {column: kind}}", "{seed: [7]}"]
)
def test_what_papermill_injects_is_never_dropped(tmp_path, given):
    done = papermill(tmp_path / "m", "out.ipynb", "-y", given)
    assert done.returncode == 1
    assert "ValueError: " in done.stderr
    assert not (tmp_path / "m").exists()


MODULES = ("random", "json", "numpy", "click", "ipykernel", "papermill", "matplotlib")


def test_no_module_of_the_working_directory_is_executed_by_a_run(short):
    for name in MODULES:
        Path(f"{name}.py").write_text(TRAP)
    retrained(short)


def test_no_module_of_the_working_directory_is_executed_by_the_first_start():
    for name in MODULES:
        Path(f"{name}.py").write_text(TRAP)
    program = """
from iris_serve.wsgi import Settings, ensure_model
ensure_model(Settings())
"""
    done = run(sys.executable, "-P", "-c", program)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert Registry(Path("models")).versions() == [1]


def test_no_module_of_the_working_directory_is_executed_by_the_recipe(models):
    for name in MODULES:
        Path(f"{name}.py").write_text(TRAP)
    program = """
from pathlib import Path
from iris_serve.training.reproduce import reproduce
print(reproduce(Path("models"), "iris", 1))
"""
    done = run(sys.executable, "-P", "-c", program)
    assert done.stdout == b"iris version 1: identical\n", done.stderr.decode()[-3000:]


def test_a_tilde_is_the_home_in_variables_options_and_parameters(short, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    flowers(home / "flowers.csv")
    command = (sys.executable, "-m", "iris_serve")
    more = ("-p", "data", "~/flowers.csv", "-p", "target", "nothing")
    assert b"nothing" in run(*command, "retrain", *more, HOME=str(home)).stderr
    done = run(*command, "train", HOME=str(home), IRIS_SERVE_MODELS="~/x")
    assert done.returncode == 0, done.stderr
    done = run(*command, "versions", "--models=~/x", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "x" / "iris" / "1").is_dir()
    assert not Path("~").exists()


def test_a_tilde_without_a_home_is_refused_in_a_line():
    done = run(sys.executable, "-m", "iris_serve", "versions", "--models=~nobody-has-this/x")
    assert done.returncode == 2
    assert done.stderr.strip().endswith(b"there is no home directory to put for ~")


OWN = (
    "C = 1.0",
    "from sklearn.linear_model import LogisticRegression\n"
    "from mine_helpers import weight\n"
    "from iris_serve.notebook import begin, keep, split\nbegin(globals())",
    "X_train, X_test, y_train, y_test = split()",
    "model = LogisticRegression(C=weight(C), max_iter=1000).fit(X_train, y_train)",
    "keep(model)",
)


@pytest.fixture
def own(tmp_path):
    """A notebook of a person's own, and a module beside it."""
    cells = [new_code_cell(code) for code in OWN]
    cells[0].metadata["tags"] = ["parameters"]
    (tmp_path / "work").mkdir()
    write(new_notebook(cells=cells), tmp_path / "work" / "mine.ipynb")
    (tmp_path / "work" / "mine_helpers.py").write_text("def weight(C):\n    return C * 10\n")
    return tmp_path / "work" / "mine.ipynb"


COMMAND = ("-P", "-m", "iris_serve")


@pytest.mark.parametrize("home", [None, pytest.param("/", marks=SLOW)])
def test_a_user_without_name_and_home_retrains_and_makes_again_a_notebook_of_ones_own(
    own, tmp_path, home
):
    tmp_path.chmod(0o777)
    python = (*as_nobody(), sys.executable, *COMMAND)
    words = ("retrain", "--notebook", own, "-p", "C", "0.5")
    done = run(*python, *words, HOME=home)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert Path("models/iris/1/card.json").stat().st_uid == NOBODY
    done = run(*python, "reproduce", "1", HOME=home)
    assert done.stdout == b"iris version 1: identical\n", done.stderr.decode()[-3000:]


def read_only_root(*writable):
    """The words before a command that see nothing writable but the directories `writable`."""
    if os.name != "posix" or os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can give a process a root that is read-only, by unshare")
    binds = "".join(f"mount --bind '{place}' '{place}' && " for place in writable)
    again = "".join(f"&& mount -o remount,bind,rw '{place}' " for place in writable)
    script = f'{binds}mount -o remount,bind,ro / {again}&& exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", script, "sh")
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounts can't be changed here, so there is no read-only root")
    if subprocess.run([*words, "touch", "/writable"], capture_output=True, check=False).returncode:
        return words
    Path("/writable").unlink(missing_ok=True)
    pytest.skip("the root stays writable here")


def test_a_run_needs_no_more_than_the_models_and_the_temporary_directory(own, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "scratch").mkdir()
    python = (*read_only_root(tmp_path / "models", tmp_path / "scratch"), sys.executable, *COMMAND)
    where = {"TMPDIR": str(tmp_path / "scratch"), "HOME": None}
    for words in (
        ("retrain", "-p", "n_estimators", "2"),
        ("retrain", "--notebook", own, "-p", "promote", "always"),
    ):
        done = run(*python, *words, **where)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
    for version in ("1", "2"):
        done = run(*python, "reproduce", version, **where)
        assert done.stdout == f"iris version {version}: identical\n".encode(), done.stderr
    assert list((tmp_path / "scratch").iterdir()) == []


OTHER_BACKENDS = [pytest.param(name, marks=SLOW) for name in ("Agg", "TkAgg", "nonsense")]


@pytest.mark.parametrize("backend", ["module://backend_interagg", *OTHER_BACKENDS])
def test_the_callers_backend_changes_no_report(short, backend):
    notebook, _ = retrained(short, MPLBACKEND=backend)
    assert pictures(notebook) == 1


def test_a_notebook_of_ones_own_is_found_at_a_path_with_an_odd_name(own, tmp_path):
    shutil.move(own.parent, tmp_path / ODD)
    done = run(sys.executable, *COMMAND, "retrain", "--notebook", tmp_path / ODD / own.name)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert list(read_card(Registry(Path("models")).path(1)).notebook.modules) == ["mine_helpers.py"]


def test_bare_papermill_needs_the_kernel_named_where_the_notebook_names_none(own):
    command = (sys.executable, "-m", "papermill", own.name, "out.ipynb", "-p", "C", "0.5")
    os.chdir(own.parent)
    done = run(*command)
    assert (done.returncode, b"No kernel name found" in done.stderr) == (1, True)
    done = run(*command, "-k", "python3", "-l", "python")
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    for text in ("README.md", "nbs/index.ipynb", "nbs/tour.ipynb", "nbs/5_training/14_own.ipynb"):
        assert (
            "papermill mine.ipynb out.ipynb -k python3 -l python -p C 0.5"
            in (ROOT / text).read_text()
        )


def test_the_readme_names_the_extra_that_the_chapters_need():
    text = (ROOT / "README.md").read_text()
    assert "`[dev]`" in text
    assert "No module named fastcore" in text
