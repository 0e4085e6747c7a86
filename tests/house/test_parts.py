"""The nine parts: who may import whom, what the base needs, and what has one name."""

import ast
import configparser
import graphlib
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from importlib.metadata import packages_distributions

import pytest
from house import MODULES, NBS, PACKAGE, ROOT, dotted, imported, name_of, tree_of

PARTS = {path.name.partition("_")[2]: int(path.name[0]) for path in NBS.glob("[0-9]_*")}
# Modules that stand outside the parts: where they come from, and so what they may import.
OUTSIDE = {
    "iris_serve": 0,
    "iris_serve.testing": 3,
    "iris_serve.notebook": 5,
    "iris_serve.wsgi": 9,
    "iris_serve.__main__": 9,
}
NAMES = {dotted(module) for module in MODULES}
BY_NAME = {"ids": name_of}
EXTRAS = ("joblib", "matplotlib", "nbformat", "pandas", "papermill", "scipy", "sklearn")
SETTINGS = configparser.ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")


def rank(name):
    """The number of the part that a module belongs to."""
    return OUTSIDE[name] if name in OUTSIDE else PARTS[name.split(".")[1]]


def own_modules(module):
    """The modules of this package that `module` imports."""
    return {name for name in imported(module) if name in NAMES} - {dotted(module), "iris_serve"}


def declared(*keys):
    """The distributions that `settings.ini` names under `keys`, as they are normalized."""
    words = " ".join(SETTINGS["DEFAULT"][key] for key in keys).split()
    return {re.split(r"[<>=\[]", word)[0].lower().replace("_", "-") for word in words}


@cache
def installed():
    """The distributions that hold each package."""
    return packages_distributions()


def distributions(module, nested):
    """What has to be installed for the imports of `module`, `nested` ones or those at its top."""
    whole = tree_of(module)
    nodes = ast.walk(whole) if nested else whole.body
    tops = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            tops.add(node.module.split(".")[0])
    foreign = tops - sys.stdlib_module_names - {"iris_serve"}
    known = installed()
    return {name.lower().replace("_", "-") for top in foreign for name in known[top][:1]}


@pytest.mark.parametrize("module", MODULES, **BY_NAME)
def test_a_part_imports_only_parts_with_lower_numbers(module):
    if dotted(module) == "iris_serve.testing":
        assert own_modules(module) <= {name for name in NAMES if rank(name) <= 3}
        return
    above = {name for name in own_modules(module) if rank(name) > rank(dotted(module))}
    assert above == set()


def test_no_module_imports_itself_in_a_circle():
    imports = {dotted(module): own_modules(module) - {dotted(module)} for module in MODULES}
    order = list(graphlib.TopologicalSorter(imports).static_order())
    assert len(order) == len(MODULES)


def test_every_folder_of_chapters_is_a_subpackage_and_the_other_way_round():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(PARTS) == packages
    assert sorted(PARTS.values()) == list(range(1, 10))


WITHOUT_EXTRAS = f"""
import importlib, importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_is_imported_by_a_base_installation():
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *sorted(NAMES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_imported_at_the_top_of_a_module_is_in_the_base():
    base = declared("requirements")
    assert {
        name_of(m): distributions(m, nested=False) - base
        for m in MODULES
        if distributions(m, nested=False) - base
    } == {}


# Declared and never imported, with the reason.
NOT_IMPORTED = {
    "flask-swagger-ui": "its files are served, and its code is not run",
    "ipykernel": "the kernel that papermill starts",
    "pyarrow": "pandas reads Parquet with it",
}


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported():
    every = set().union(*(distributions(module, nested=True) for module in MODULES))
    asked = declared(*(f"{extra}requirements" for extra in ("", "retrain_", "parquet_", "lambda_")))
    assert every - asked == set()
    assert asked - every == set(NOT_IMPORTED)


def defined(module):
    """The names that a module defines at its top; private ones are its own affair."""
    for node in tree_of(module).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (name.id for name in node.targets if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


# Names that two modules define, with the reason; at most a dozen.
COMMAND = "a command, named like the function that it calls"
DEFINED_TWICE = {
    "add": COMMAND,
    "history": COMMAND,
    "promote": COMMAND,
    "repair": COMMAND,
    "reproduce": COMMAND,
    "retrain": COMMAND,
    "rollback": COMMAND,
    "serve": COMMAND,
    "split": "a verb of notebooks, named like the function that it calls",
    "train": COMMAND,
    "verify": COMMAND,
}


def test_a_name_means_one_thing():
    where = defaultdict(list)
    for module in MODULES:
        for name in set(defined(module)) - {"__all__", "__version__"}:
            where[name].append(name_of(module))
    twice = {name: sorted(places) for name, places in where.items() if len(places) > 1}
    assert twice == {name: twice.get(name) for name in DEFINED_TWICE}
    assert len(DEFINED_TWICE) <= 12
