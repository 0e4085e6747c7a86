"""Install the locked development environment, and run every check of the project in it.

python3 scripts/check.py               all checks
python3 scripts/check.py -- -k http    all checks; what follows is passed on to pytest
python3 scripts/check.py -- -m slow    all checks, and of the tests those with the full counts
python3 scripts/check.py -- -n 0       all checks, with the tests one after another
python3 scripts/check.py --job retrain the retraining notebook twice; the result is in dist/retrain
python3 scripts/check.py --job docs    the documentation site, in _docs
python3 scripts/check.py --job release wheel, source, checksums and SBOM, in dist/release
python3 scripts/check.py --job newest  all checks, with today's releases of what is required

The environment is `.venv-dev`; it is made anew when the lock or the requirements have changed.
Beside it is `.venv-clients`, from a lock of its own: the clients that the tests run as programs.
`.venv-docs` makes the site; where it is not there, the test that makes it is skipped, but in CI.
"""

from __future__ import annotations  # an older Python must come as far as the complaint about it

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = ("retrain", "docs", "release", "newest")
NEWEST = sys.argv[1:3] == ["--job", "newest"]
VENV = ROOT / (".venv-newest" if NEWEST else ".venv-dev")
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCK = ROOT / "requirements" / "dev.txt"
CLIENTS = ROOT / ".venv-clients"
CLIENTS_LOCK = ROOT / "requirements" / "clients.txt"
RELEASE = ROOT / ".venv-release"
RELEASE_LOCK = ROOT / "requirements" / "release.txt"
SITE = ROOT / ".venv-docs"
SITE_LOCK = ROOT / "requirements" / "docs.txt"
SOURCES = ["nbs", "tests", "scripts", "docs", "setup.py"]


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


def check_version() -> None:
    """Stop if this Python is too old."""
    if sys.version_info < (3, 11):  # noqa: UP036 (it may well be started by an older one)
        fail(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}")


def install() -> None:
    """Make `.venv-dev`, from its lock; `.venv-newest` without one, from what there is today."""
    parts = [LOCK, ROOT / "settings.ini", ROOT / "setup.py"]
    if NEWEST:
        shutil.rmtree(VENV, ignore_errors=True)
        make(VENV, parts, newest=["setuptools", "wheel", "-e", f"{ROOT}[dev]"])
        return
    locked: list[str | Path] = ["--no-deps", "--require-hashes", "-r", LOCK]
    editable: list[str | Path] = ["--no-deps", "--no-build-isolation", "-e", ROOT]
    make(VENV, parts, development=locked, iris_serve=editable)


def install_clients() -> None:
    """Make `.venv-clients` for clients that want other versions of things."""
    # The lock is complete, and knows better than mlserver with what its types work; most of the
    # rest is never imported, and need not be compiled.
    freely: list[str | Path] = ["--no-deps", "--ignore-requires-python", "--no-compile"]
    make(CLIENTS, [CLIENTS_LOCK], clients=[*freely, "--require-hashes", "-r", CLIENTS_LOCK])


def install_docs() -> None:
    """Make `.venv-docs`; the package is imported from this directory."""
    locked: list[str | Path] = ["--no-compile", "--require-hashes", "-r", SITE_LOCK]
    make(SITE, [SITE_LOCK], documentation=locked)


def environment(models: Path) -> dict[str, str]:
    """The environment of the checks: no settings from outside, and models in a temporary place."""
    foreign = ("IRIS_SERVE_", "IRIS_RETRAIN_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) and k != "IN_TEST"}
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return kept | {"IRIS_SERVE_MODELS": str(models), "PATH": path, "VIRTUAL_ENV": str(VENV)}


MADE = ("iris_model.pkl", "forest.safetensors", "card.json")


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
        made.append([(artifact / name).read_bytes() for name in MADE])
    if made[0] != made[1]:
        fail("two runs of papermill with the same parameters made different bytes")


def tree() -> str:
    """What git says of the working tree; empty if git has nothing to say."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return ""
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def fresh(name: str) -> Path:
    """An empty directory `name` below `dist`."""
    place = ROOT / "dist" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


PAGE = """
import sys
from pathlib import Path
from iris_serve.training.page import notebook_page
notebook = Path(sys.argv[1])
notebook.with_suffix(".html").write_bytes(notebook_page(notebook.read_bytes()))
"""


def retrain() -> None:
    """The job retrain: what two equal runs made, with its digests, stays in `dist/retrain`."""
    kept = fresh("retrain")
    with tempfile.TemporaryDirectory() as folder:
        papermill_twice(Path(folder))
        for name in MADE:
            shutil.copy(Path(folder, "one", "iris", "1", name), kept)
        shutil.copy(Path(folder, "one.ipynb"), kept / "retrain.ipynb")
        run("the page", BIN / "python", "-c", PAGE, kept / "retrain.ipynb", env=environment(kept))
    print(
        f"\nboth runs made the same {', '.join(MADE)}; what is kept:\n{with_checksums(kept)}",
        end="",
    )


def docs() -> None:
    """The job docs: the site in `_docs`."""
    install_docs()
    run("the site", SITE / BIN.name / "python", ROOT / "scripts" / "website.py")


def with_checksums(folder: Path) -> str:
    """Write `SHA256SUMS` beside the files of `folder`; returns its lines."""
    digests = [
        (hashlib.sha256(p.read_bytes()).hexdigest(), p.name) for p in sorted(folder.iterdir())
    ]
    lines = "".join(f"{digest}  {name}\n" for digest, name in digests)
    (folder / "SHA256SUMS").write_text(lines)
    return lines


def release() -> None:
    """The job release: what is published, and what the wheel brings along, in `dist/release`."""
    made = fresh("release")
    make(RELEASE, [RELEASE_LOCK], tools=["--require-hashes", "-r", RELEASE_LOCK])
    tools = RELEASE / BIN.name
    run("wheel and source", tools / "python", "-m", "build", "-n", "-o", made, ROOT)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder)
        pins = re.findall(r"^([\w.-]+==[^\\\n]+?)\s*\\$", LOCK.read_text(encoding="utf-8"), re.M)
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(pins))
        python = Path(folder, BIN.name, "python")
        pip = [tools / "python", "-m", "pip", "--python", python, "install", "-q"]
        run("the wheel", *pip, "-c", constraints, "--no-compile", *made.glob("*.whl"))
        for origin in Path(folder).rglob("direct_url.json"):
            origin.unlink()  # it names the place of the wheel on this machine
        sbom = made / "iris_serve.cdx.json"
        words = ["environment", python, "-o", sbom, "--output-reproducible", "--validate"]
        run("SBOM", tools / "cyclonedx-py", *words)
    print(f"\nin {made}:\n{with_checksums(made)}", end="")


def everything(asked: list[str]) -> int:
    """Run all checks; the tests come last, so that their summary is the last thing said."""
    before = tree()
    install_clients()
    if os.environ.get("CI") or SITE.exists():
        install_docs()
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
    return code


def main() -> None:
    """Run one job, or all checks."""
    check_version()
    words, job = sys.argv[1:], ""
    if words[:1] == ["--job"]:
        job, words = (words[1] if words[1:] else ""), words[2:]
        if job not in JOBS:
            fail(f"there is no job {job!r}; there are {', '.join(JOBS)}")
    if job in ("docs", "release"):
        return docs() if job == "docs" else release()
    install()
    if job == "retrain":
        retrain()
    else:
        sys.exit(everything(words[1:] if words[:1] == ["--"] else words))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
