"""A version can be made again from what was recorded, or is told apart from what it was."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from training_helpers import SMALL, mixed_file, of_wine

import iris_serve.training.reproduce
import iris_serve.training.retrain
from iris_serve.model.atomic import ArtifactError, sha256, to_json
from iris_serve.model.card import CARD_FILE, read_card, retraining_notebook
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import Registry, promote
from iris_serve.registry.verify import verify
from iris_serve.training.parameters import Parameters, parse_value
from iris_serve.training.reproduce import reproduce
from iris_serve.training.retrain import retrain, train
from iris_serve.training.runner import RetrainError


def test_only_the_named_features_are_learned_from(tmp_path, wine):
    train(tmp_path, of_wine(wine, features="hue, alcohol"))
    card = read_card(Registry(tmp_path, "wine").path(1))
    assert card.contract.names == ["hue", "alcohol"]
    assert reproduce(tmp_path, "wine", 1).identical


def test_the_classes_may_be_in_a_column_called_none(tmp_path, wine):
    other = tmp_path / "other.csv"
    other.write_text(wine.read_text().replace("kind", "None", 1))
    target = parse_value('"None"', "target")
    retrain(tmp_path / "models", Parameters(data=str(other), target=target, n_estimators=2))
    assert read_card(Registry(tmp_path / "models").path(1)).parameters.target == "None"
    assert reproduce(tmp_path / "models", "iris", 1).identical


def test_a_large_file_is_not_copied_and_has_to_be_named(tmp_path, wine, monkeypatch):
    monkeypatch.setattr(iris_serve.training.retrain, "MAX_KEPT_DATA", 10)
    train(tmp_path, of_wine(wine))
    (lost,) = reproduce(tmp_path, "wine", 1).differences
    assert lost == "data: no copy of wine.csv was kept; name the file"
    assert reproduce(tmp_path, "wine", 1, wine).identical
    other = tmp_path / "wine.csv"
    other.write_text(wine.read_text().replace("class_0", "class_1", 1))
    (changed,) = reproduce(tmp_path, "wine", 1, other).differences
    assert changed.startswith("data: the file wine.csv is another table")


def test_a_version_is_reproduced_elsewhere_in_another_process(wines, tmp_path):
    code = "import sys; from pathlib import Path; "
    code += "from iris_serve.training.reproduce import reproduce; "
    code += "print(reproduce(Path(sys.argv[1]), 'wine', 1))"
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, os.path.relpath(wines, tmp_path / "elsewhere")],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "wine version 1: identical\n"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert Registry(wines, "wine").versions() == [1]


def test_a_reproduction_shows_how_far_the_notebook_is(wines, capfd):
    assert reproduce(wines, "wine", 1, progress=True).identical
    shown = set(re.findall(r"(\d+)/\d+ \[", capfd.readouterr().err))
    assert "0" in shown
    assert len(shown) > 3, "the bar never moved"
    assert reproduce(wines, "wine", 1).identical
    assert capfd.readouterr().err == ""


def test_a_changed_copy_of_the_data_is_named(wines):
    copy = Registry(wines, "wine").path(1) / "data.csv"
    copy.write_text(copy.read_text().replace("class_0", "class_1", 1))
    again = reproduce(wines, "wine", 1)
    assert not again.identical
    assert again.differences[0].startswith("data: the kept copy is another table")


def test_a_changed_copy_of_the_data_is_found_by_verify_and_a_removed_one_is_none(wines):
    registry = Registry(wines, "wine")
    copy = registry.path(1) / "data.csv"
    data = copy.read_bytes()
    copy.write_bytes(data + b"\n")
    assert verify(registry) == [f"version 1: {copy} is not the data file that card.json describes"]
    with pytest.raises(ArtifactError, match="is not the data file"):
        promote(registry, 1, "it looked fine")
    copy.unlink()
    assert verify(registry) == []


def test_a_changed_source_is_named(wines, monkeypatch):
    monkeypatch.setattr(iris_serve.training.reproduce, "source_digest", lambda own: "0" * 64)
    assert reproduce(wines, "wine", 1).differences == ("code: the source that trains is another",)


@pytest.mark.parametrize("library", ["numpy", "python"])
def test_another_library_is_named(wines, library):
    path = Registry(wines, "wine").path(1)
    card = read_card(path)
    older = msgspec.structs.replace(card, versions=card.versions | {library: "1.0"})
    (path / CARD_FILE).write_bytes(to_json(older))
    with pytest.raises(
        ArtifactError, match=r"is not the card that run\.json describes; its notebook is"
    ):
        reproduce(wines, "wine", 1)
    (found,) = reproduce(wines, "wine", 1, trust=True).differences
    assert found.startswith(f"library: {library} was 1.0, is ")


def test_another_result_is_named_and_the_recorded_notebook_is_what_runs(wines):
    path = Registry(wines, "wine").path(1)
    card, run = read_card(path), read_run(path)
    data = (path / "retrain.ipynb").read_text()
    fitted = "forest = run.fit(train)"
    other = data.replace(
        fitted, f"{fitted}.set_params(random_state=9).fit(train.X, train.y)"
    ).encode()
    assert other != data.encode()
    (path / "retrain.ipynb").write_bytes(other)
    with pytest.raises(ValueError, match=r"not the notebook that run.json describes"):
        reproduce(wines, "wine", 1)
    changed = msgspec.structs.replace(run, notebook=sha256(other))
    (path / "run.json").write_bytes(to_json(changed))
    with pytest.raises(ArtifactError, match="no promotion of version 1 names its notebook; its"):
        reproduce(wines, "wine", 1)
    again = reproduce(wines, "wine", 1, trust=True)
    assert "result: the model file differs" in again.differences
    assert card == read_card(path)


@pytest.mark.parametrize(
    "imports",
    [
        ["from iris_serve.retrain import Session"],
        ["import os\n", "import iris_serve.gate as gate"],
        ["from iris_serve.notebook import begin\n", "    from iris_serve.card import make_card"],
    ],
)
def test_a_version_recorded_by_an_earlier_iris_serve_is_refused_in_one_line(
    wines, imports, monkeypatch
):
    path = Registry(wines, "wine").path(1)
    text = {"cell_type": "markdown", "source": ["from iris_serve.docs import nothing"]}
    cells = [text, {"cell_type": "code", "source": imports}]
    early = json.dumps({"cells": cells, "nbformat": 4}).encode()
    (path / "retrain.ipynb").write_bytes(early)
    run = msgspec.structs.replace(read_run(path), notebook=sha256(early))
    (path / "run.json").write_bytes(to_json(run))
    monkeypatch.setattr(iris_serve.training.reproduce, "run_notebook", None)
    with pytest.raises(RetrainError) as refused:
        reproduce(wines, "wine", 1)
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(
        "this version was recorded by an earlier iris_serve (its notebook imports "
    )
    assert "iris_serve.docs" not in said
    assert "install that iris_serve" in said
    assert "python -m iris_serve retrain" in said
    assert Registry(wines, "wine").versions() == [1]


def test_a_version_of_an_earlier_iris_serve_without_a_notebook_follows_the_recipe(tmp_path):
    train(tmp_path, SMALL)
    path = Registry(tmp_path).path(1)
    (path / CARD_FILE).write_bytes(
        to_json(msgspec.structs.replace(read_card(path), source="0" * 64))
    )
    assert reproduce(tmp_path, "iris", 1).differences == (
        "code: the source that trains is another",
    )


@pytest.mark.parametrize("name", ["iris", "pets"])
def test_a_version_in_the_format_before_is_made_again_to_the_byte(tmp_path, name):
    import sklearn

    if sklearn.__version__.split(".")[:2] != ["1", "9"]:
        pytest.skip("the pickles were written under scikit-learn 1.9")
    old = Path(__file__).parents[1] / "3_model" / "data" / "format-2"
    models = shutil.copytree(old, tmp_path / "models")
    found = reproduce(models, name, 1).differences
    assert [line for line in found if not line.startswith("library: ")] == [
        "code: the source that trains is another"
    ]


@pytest.mark.parametrize("run", [retrain, train])
@pytest.mark.parametrize("number", [False, True])
def test_a_version_of_a_mixed_table_is_made_again(tmp_path, run, number):
    file = mixed_file(tmp_path / "pets.csv", number=number)
    told = Parameters(name="pets", data=str(file), target="kind", n_estimators=5, n_jobs=2)
    run(tmp_path / "m", told)
    assert read_card(Registry(tmp_path / "m", "pets").path(1)).not_frozen == ""
    assert reproduce(tmp_path / "m", "pets", 1).identical


@pytest.mark.parametrize("ending", [".tsv", ".pq"])
def test_a_version_of_a_file_with_another_ending_is_made_again(tmp_path, ending):
    import pandas as pd

    file = mixed_file(tmp_path / "pets.csv")
    frame, other = pd.read_csv(file), tmp_path / f"pets{ending}"
    frame.to_parquet(other) if ending == ".pq" else frame.to_csv(other, index=False, sep="\t")
    train(tmp_path / "m", Parameters(name="pets", data=str(other), target="kind", n_estimators=5))
    path = Registry(tmp_path / "m", "pets").path(1)
    assert (path / f"data{ending}").read_bytes() == other.read_bytes()
    assert reproduce(tmp_path / "m", "pets", 1).identical


def test_a_notebook_of_another_release_is_executed_if_its_promotion_names_it(wines):
    registry = Registry(wines, "wine")
    path, run = registry.path(1), read_run(registry.path(1))
    text = (path / "retrain.ipynb").read_text()
    earlier = text.replace("forest = run.fit(train)", "forest = run.fit(train)  # as it was once")
    assert earlier != text
    (path / "retrain.ipynb").write_text(earlier)
    other = msgspec.structs.replace(run, notebook=sha256(earlier.encode()))
    (path / "run.json").write_bytes(to_json(other))
    with pytest.raises(ArtifactError, match="no promotion of version 1 names its notebook"):
        reproduce(wines, "wine", 1)
    promote(registry, 1, "it was promoted by that release")
    assert reproduce(wines, "wine", 1).identical


PLANTED = "open('executed', 'w').close()"


def with_a_failed_cell(notebook, at):
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    planted = {"cell_type": "code", "id": "planted", "metadata": {}, "outputs": [error]}
    notebook["cells"].insert(at + 1, planted | {"execution_count": 1, "source": PLANTED})


def with_a_second_injected_cell(notebook, at):
    planted = {"cell_type": "code", "id": "planted", "outputs": [], "execution_count": 1}
    tags = {"tags": ["injected-parameters"]}
    notebook["cells"].insert(at + 1, planted | {"metadata": tags, "source": PLANTED})


def with_another_injected_cell(notebook, at):
    notebook["cells"][at]["source"] = f"# Parameters\nseed = 7\n{PLANTED}"


def with_a_plain_cell(notebook, at):
    planted = {"cell_type": "code", "id": "planted", "metadata": {}, "outputs": []}
    notebook["cells"].insert(at + 1, planted | {"execution_count": 1, "source": PLANTED})


def with_a_worksheet(notebook, at):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    sources = [("".join(cell["source"]), cell["metadata"]) for cell in code]
    sources.insert(2, (PLANTED, {}))
    plain = {"cell_type": "code", "language": "python", "outputs": [], "prompt_number": 1}
    cells = [plain | {"input": text, "metadata": told} for text, told in sources]
    notebook |= {"nbformat": 3, "nbformat_minor": 0}
    notebook["worksheets"] = [{"cells": cells, "metadata": {}}]


def with_a_worksheet_and_no_cells(notebook, at):
    with_a_worksheet(notebook, at)
    del notebook["cells"]


def with_a_worksheet_in_the_format_of_today(notebook, at):
    with_a_worksheet(notebook, at)
    notebook["nbformat"] = 4


def with_no_code(notebook, at):
    notebook["cells"] = []


def with_fewer_cells(notebook, at):
    code = [i for i, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"]
    del notebook["cells"][code[-1]]


@pytest.mark.parametrize("number", [1, 2], ids=["promoted", "copied"])
@pytest.mark.parametrize(
    "plant",
    [
        *(with_a_plain_cell, with_a_failed_cell, with_a_second_injected_cell),
        *(with_another_injected_cell, with_a_worksheet, with_a_worksheet_and_no_cells),
        *(with_a_worksheet_in_the_format_of_today, with_no_code, with_fewer_cells),
    ],
)
def test_what_nothing_vouches_for_is_not_executed(wines, tmp_path, monkeypatch, plant, number):
    monkeypatch.chdir(tmp_path)
    registry = Registry(wines, "wine")
    path = registry.folder / str(number)
    if number == 2:
        shutil.copytree(registry.path(1), path)
    notebook = json.loads((path / "retrain.ipynb").read_text())
    tags = [cell["metadata"].get("tags", []) for cell in notebook["cells"]]
    plant(notebook, tags.index(["injected-parameters"]))
    data = json.dumps(notebook).encode()
    (path / "retrain.ipynb").write_bytes(data)
    record = msgspec.structs.replace(read_run(path), version=number, notebook=sha256(data))
    (path / "run.json").write_bytes(to_json(record))
    with pytest.raises(ArtifactError) as refused:
        reproduce(wines, "wine", number)
    said = str(refused.value)
    assert "\n" not in said
    assert "no promotion of" in said or "retrain.ipynb is no notebook of format 4" in said
    assert not Path("executed").exists()


def test_what_is_executed_for_our_own_code_is_the_installed_notebook(wines, monkeypatch):
    run_notebook, executed = iris_serve.training.reproduce.run_notebook, []

    def listened(notebook, *words, **more):
        executed.append(notebook.read_bytes())
        return run_notebook(notebook, *words, **more)

    monkeypatch.setattr(iris_serve.training.reproduce, "run_notebook", listened)
    assert reproduce(wines, "wine", 1).identical
    assert executed == [retraining_notebook().read_bytes()]
