"""Well-known tables are learned from and served at the first try, with nothing but a target."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import joblib
import pandas as pd
import pytest

from iris_serve.data.tables import load_table
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.service.app import create_app
from iris_serve.training.parameters import Parameters
from iris_serve.training.retrain import train

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Known:
    """What a careful person makes of the columns of a file; those not named are numbers."""

    file: str
    target: str
    task: str
    left_out: str = ""
    categories: str = ""
    booleans: str = ""
    missing: str = ""

    def __str__(self):
        return f"{self.file.partition('.')[0]}-{self.target}"

    def columns(self):
        """The names in the file; a column without one is called as pandas calls it."""
        return list(pd.read_csv(HERE / self.file, nrows=0))

    def kind(self, name):
        listed = {"left out": self.left_out, "category": self.categories, "boolean": self.booleans}
        if name == self.target:
            return "target"
        return next((kind for kind, names in listed.items() if name in names.split()), "number")


HOUSE = """
MS_SubClass MS_Zoning Street Alley Lot_Shape Land_Contour Utilities Lot_Config Land_Slope
Neighborhood Condition_1 Condition_2 Bldg_Type House_Style Overall_Cond Roof_Style Roof_Matl
Exterior_1st Exterior_2nd Mas_Vnr_Type Exter_Cond Foundation Bsmt_Cond Bsmt_Exposure BsmtFin_Type_1
BsmtFin_Type_2 Heating Heating_QC Electrical Functional Garage_Type Garage_Finish Garage_Cond
Paved_Drive Pool_QC Fence Misc_Feature Sale_Type Sale_Condition
"""
BODY = "bill_length_mm bill_depth_mm flipper_length_mm body_mass_g sex"
KNOWN = [
    Known("iris_index.csv", "species", "classes", "Unnamed:_0"),
    Known("iris_gaps.csv", "species", "classes", "Unnamed:_0"),
    Known("iris_kaggle.csv", "species", "classes", "Id"),
    Known("penguins.csv", "species", "classes", "", "island sex", "", BODY),
    Known("penguins.csv", "sex", "classes", "", "species island"),
    Known(
        "mlc_churn.csv",
        "churn",
        "classes",
        "rownames",
        "state area_code",
        "international_plan voice_mail_plan",
    ),
    Known(
        "ames.csv",
        "Sale_Price",
        "number",
        "rownames",
        HOUSE,
        "Central_Air",
        "Mas_Vnr_Type Misc_Feature",
    ),
    Known("diamonds.csv", "cut", "classes", "rownames", "color clarity"),
    Known("diamonds.csv", "price", "number", "rownames", "cut color clarity"),
    Known("gapminder.csv", "country", "classes", "rownames", "continent"),
    Known("gapminder.csv", "lifeExp", "number", "rownames", "country continent"),
    Known("credit_cards.csv", "LateSept", "classes", "rownames", "", "LateApril"),
    Known("airports.csv", "state", "classes", "iata name city country"),
    Known("phishing.csv.gz", "is_phishing", "classes"),
    Known(
        "flights.csv",
        "late",
        "classes",
        "rownames year tailnum time_hour",
        "carrier origin dest",
    ),
]


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_what_is_found_in_a_well_known_table(known):
    table = load_table(str(HERE / known.file), known.target)
    columns = known.columns()
    kinds = [known.kind(name.replace(" ", "_")) for name in columns]
    assert [note.kind for note in table.columns] == kinds
    assert all(note.why for note in table.columns)
    contract = table.contract
    features = [
        (n, k) for n, k in zip(columns, kinds, strict=True) if k not in ("target", "left out")
    ]
    assert [(feature.name, feature.kind) for feature in contract.features] == features
    assert {f.name for f in contract.features if f.missing} == set(known.missing.split())
    assert contract.task == known.task
    rows = pd.read_csv(HERE / known.file)[known.target].notna().sum()
    assert len(table) == rows


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_a_well_known_table_is_served_at_the_first_try(known, tmp_path):
    data = HERE / known.file
    run = train(tmp_path, Parameters(data=str(data), target=known.target, n_estimators=3))
    assert run.promoted, run.why
    predictor = open_predictor(Registry(tmp_path))
    contract = predictor.contract
    options = {"na_values": contract.marks, "keep_default_na": False} if contract.marks else {}
    frame = pd.read_csv(data, **options)
    frame = frame.dropna(subset=known.target)[contract.names]
    estimator = joblib.load(tmp_path / "iris" / "1" / "iris_model.pkl")
    wanted = estimator.predict(frame.to_numpy("float64") if contract.numeric else frame).tolist()
    client = create_app(predictor).test_client()
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    answer = client.post("/predict", json={"features": rows})
    assert answer.status_code == 200, answer.data
    assert answer.json["predictions"] == wanted
    text = frame.to_csv(index=False)
    answer = client.post("/predict", data=text, content_type="text/csv")
    assert answer.json["predictions"] == wanted
    answer = client.post("/predict?detail=true", json={"features": rows[0]})
    assert answer.json["prediction"] == wanted[0]
    assert (tmp_path / "iris" / "1" / "forest.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_thirty_tables_are_as_good_as_by_hand(tmp_path):
    script = ROOT / "scripts" / "tables.py"
    command = [sys.executable, script, "--to", tmp_path, "--run", "--trees", "20"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
