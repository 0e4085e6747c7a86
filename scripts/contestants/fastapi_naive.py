"""FastAPI, pydantic, uvicorn and scikit-learn, as their first pages say.

python fastapi_naive.py MODEL PORT
"""

import sys

import joblib
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(sys.argv[1])


class Question(BaseModel):
    """One row, or many."""

    features: list[float] | list[list[float]]


@app.post("/predict")
def predict(question: Question):
    features = question.features
    if isinstance(features[0], list):
        return {"predictions": model.predict(features).tolist()}
    return {"prediction": int(model.predict([features])[0])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]))
