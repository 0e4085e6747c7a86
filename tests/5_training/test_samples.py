"""Each sample is a table that can be trained from, as the command that writes it says."""

import pytest

from iris_serve.model.card import read_card
from iris_serve.registry.registry import Registry
from iris_serve.training.parameters import Parameters
from iris_serve.training.retrain import train
from iris_serve.training.samples import SAMPLES, sample_bytes, write_sample


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_is_trained_from_with_nothing_but_its_target(tmp_path, name):
    file = tmp_path / f"{name}.csv"
    target = write_sample(name, file)
    run = train(tmp_path, Parameters(name=name, data=str(file), target=target, n_estimators=20))
    card = read_card(Registry(tmp_path, name).path(1))
    assert run.promoted
    assert card.contract.task == ("number" if name == "diabetes" else "classes")
    assert card.not_frozen == ""
    scores = card.metrics
    if name == "diabetes":
        assert scores.mae < scores.baseline_mae
    else:
        assert scores.accuracy > scores.baseline + 0.2
    left_out = [note.name for note in card.columns if note.kind == "left out"]
    assert len(left_out) == {"digits": 3}.get(name, 0)


def test_a_sample_is_the_same_every_time_and_does_not_replace_a_file(tmp_path):
    assert sample_bytes("wine") == sample_bytes("wine")
    assert b"\r" not in sample_bytes("penguins")
    write_sample("iris", tmp_path / "mine.csv")
    with pytest.raises(FileExistsError, match="is there already"):
        write_sample("wine", tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_bytes() == sample_bytes("iris")
