"""Install the locked development environment, and run every check of the project in it.

python3 scripts/check.py               all checks
python3 scripts/check.py -- -k http    all checks; what follows is passed on to pytest
python3 scripts/check.py -- -m slow    all checks, and of the tests those with the full counts
python3 scripts/check.py -- -n 0       all checks, with the tests one after another

The environment is `.venv-dev`; it is made anew when the lock or the requirements have changed.
Beside it is `.venv-clients`, from a lock of its own: the clients that the tests run as programs.
"""

from __future__ import annotations  # an older Python must come as far as the complaint about it

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-dev"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCK = ROOT / "requirements" / "dev.txt"
CLIENTS = ROOT / ".venv-clients"
CLIENTS_LOCK = ROOT / "requirements" / "clients.txt"
SOURCES = ["nbs", "tests", "scripts", "setup.py"]


def fail(message: str) -> None:
    """Say what is wrong in one line, and stop."""
    sys.exit(f"check: {message}")


def run(title: str, *command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run one step of the checks, and stop if it fails."""
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    code = subprocess.run(list(map(str, command)), cwd=ROOT, env=env).returncode
    print(f"== {title}: {time.monotonic() - started:.0f} s", flush=True)
    if code:
        fail(f"{title} failed")


def make(place: Path, parts: list[Path], **steps: list[str | Path]) -> None:
    """Make a virtual environment by steps of pip, if it is not there or not from these files."""
    stamp = hashlib.sha256(b"\0".join(path.read_bytes() for path in parts)).hexdigest()
    stamp += f" {sys.version} {place}"
    made = place / "made-from"
    if made.is_file() and made.read_text() == stamp:
        return
    shutil.rmtree(place, ignore_errors=True)
    try:
        venv.create(place, with_pip=True)
    except (OSError, subprocess.CalledProcessError):
        fail("this Python cannot make virtual environments; install its venv module (python3-venv)")
    python = place / BIN.name / "python"
    for what, options in steps.items():
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run(f"install {what}", *pip, *options)
    made.write_text(stamp)


def install() -> None:
    """Make `.venv-dev`, and `.venv-clients` for clients that want other versions of things."""
    if sys.version_info < (3, 11):  # noqa: UP036 (it may well be started by an older one)
        fail(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}")
    locked: list[str | Path] = ["--require-hashes", "-r"]
    editable: list[str | Path] = ["--no-deps", "--no-build-isolation", "-e", ROOT]
    parts = [LOCK, ROOT / "settings.ini", ROOT / "setup.py"]
    make(VENV, parts, development=[*locked, LOCK], iris_serve=editable)
    # The lock is complete, and knows better than mlserver with what its types work; most of the
    # rest is never imported, and need not be compiled.
    locked = ["--no-deps", "--ignore-requires-python", "--no-compile", *locked]
    make(CLIENTS, [CLIENTS_LOCK], clients=[*locked, CLIENTS_LOCK])


def environment(models: Path) -> dict[str, str]:
    """The environment of the checks: no settings from outside, and models in a temporary place."""
    foreign = ("IRIS_SERVE_", "IRIS_RETRAIN_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) and k != "IN_TEST"}
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return kept | {"IRIS_SERVE_MODELS": str(models), "PATH": path, "VIRTUAL_ENV": str(VENV)}


def papermill_twice(folder: Path) -> None:
    """Run the retraining notebook twice by bare papermill, and compare what they made."""
    made = []
    for turn, number in (("one", "1"), ("two", "2")):
        env = environment(folder / turn)
        env |= {"PYTHONHASHSEED": number, "OMP_NUM_THREADS": number}
        out = folder / f"{turn}.ipynb"
        parameters = ["-p", "seed", "7", "-p", "n_estimators", "20"]
        notebook = ROOT / "nbs" / "retrain.ipynb"
        command = [BIN / "papermill", notebook, out, *parameters, "--no-progress-bar"]
        run(f"papermill, run {turn}", *command, env=env)
        artifact = folder / turn / "iris" / "1"
        names = ("iris_model.pkl", "forest.safetensors", "card.json")
        made.append([(artifact / name).read_bytes() for name in names])
    if made[0] != made[1]:
        fail("two runs of papermill with the same parameters made different bytes")


def tree() -> str:
    """What git says of the working tree; empty if git has nothing to say."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return ""
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def main() -> None:
    """Run all checks; the tests come last, so that their summary is the last thing said."""
    before = tree()
    asked = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    install()
    if not list((ROOT / "nbs").glob("*.ipynb")):
        fail("there are no notebooks")
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder) / "models")
        run("ruff", BIN / "ruff", "check", ".", env=env)
        run("ruff format", BIN / "ruff", "format", "--check", *SOURCES, env=env)
        run("mypy", BIN / "mypy", env=env)
        papermill_twice(Path(folder))
        if tree() != before:
            fail(f"running the notebooks changed the working tree:\n{tree()}")
        print("\n== pytest", flush=True)
        command = [BIN / "python", "-m", "pytest", "-n", "auto", "--maxprocesses", "4", *asked]
        code = subprocess.call(command, cwd=ROOT, env=env)
    if not code and tree() != before:
        fail(f"the tests changed the working tree:\n{tree()}")
    sys.exit(code)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
