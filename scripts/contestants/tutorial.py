"""The script with which a tutorial ends: Flask's own server, joblib, scikit-learn.

python tutorial.py MODEL PORT
"""

import sys

import joblib
from flask import Flask, jsonify, request

app = Flask(__name__)
model = joblib.load(sys.argv[1])


@app.route("/predict", methods=["POST"])
def predict():
    features = request.get_json()["features"]
    if isinstance(features[0], list):
        return jsonify({"predictions": model.predict(features).tolist()})
    return jsonify({"prediction": int(model.predict([features])[0])})


if __name__ == "__main__":
    app.run(port=int(sys.argv[2]))
