"""FastAPI and uvicorn with the frozen forest of this project: everything but its service.

`async def`, since the forest answers in less time than a thread needs to take the question.

python fastapi_forest.py MODEL PORT      the frozen forest stands beside MODEL
"""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from iris_serve.forest import Forest

app = FastAPI()
forest = Forest.load(Path(sys.argv[1]).with_name("forest.safetensors"))


class Question(BaseModel):
    """One row, or many."""

    features: list[float] | list[list[float]]


@app.post("/predict")
async def predict(question: Question):
    features = question.features
    if isinstance(features[0], list):
        return {"predictions": forest.predict(features).tolist()}
    return {"prediction": int(forest.predict([features])[0])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]))
