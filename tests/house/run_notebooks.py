"""Run notebooks, each in a copy of this process, which has imported what they need already.

Each line of standard input names a notebook, where to write what came of it, and where models
may be kept, with tabs between them. Each line of standard output is the exit code of one.
"""

import os
import sys
import traceback
from pathlib import Path

import matplotlib.pyplot
import numpy
import pandas
import sklearn.ensemble
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell

import iris_serve.training.retrain
import iris_serve.wsgi

IMPORTED = matplotlib.pyplot, numpy, pandas, sklearn.ensemble, iris_serve


def run(path, done, models):
    """Run the cells of the notebook `path`; the first error ends it. Returns the exit code."""
    os.environ["IRIS_SERVE_MODELS"] = models
    os.chdir(path.parent)
    notebook, shell = read_nb(path), CaptureShell(path)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "skip-execution" not in cell.metadata.get("tags", []):
            shell.cell(cell)
            if shell.exc and not isinstance(shell.exc, SystemExit):
                traceback.print_exception(shell.exc)
                return 1
    write_nb(notebook, done)
    return 0


def copy_and_run(*paths):
    """The exit code of a copy of this process that runs a notebook."""
    if not (copy := os.fork()):
        code = 3
        try:
            code = run(*paths)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


if __name__ == "__main__":
    answers, sys.stdout = os.fdopen(os.dup(1), "w", buffering=1), sys.stderr
    os.dup2(2, 1)  # what a notebook prints is no answer
    for line in sys.stdin:
        path, done, models = line.rstrip("\n").split("\t")
        answers.write(f"{copy_and_run(Path(path), Path(done), models)}\n")
