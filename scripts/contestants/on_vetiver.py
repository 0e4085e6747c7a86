"""vetiver: a model, a prototype of its rows, and an API made from both.

python on_vetiver.py MODEL PORT
"""

import sys

import joblib
import pandas as pd
from vetiver import VetiverAPI, VetiverModel

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = pd.DataFrame([[5.1, 3.5, 1.4, 0.2], [6.1, 2.8, 4.7, 1.2]], columns=NAMES)

if __name__ == "__main__":
    model = VetiverModel(joblib.load(sys.argv[1]), "iris", prototype_data=ROWS)
    VetiverAPI(model, check_prototype=True).run(host="127.0.0.1", port=int(sys.argv[2]))
