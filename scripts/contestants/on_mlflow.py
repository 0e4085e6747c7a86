"""MLflow's own server for a model that `mlflow.sklearn` has saved.

python on_mlflow.py MODEL          save the model as MLflow has it
python on_mlflow.py MODEL PORT     serve
"""

import os
import sys
from pathlib import Path

if len(sys.argv) == 2:
    import joblib
    import mlflow.sklearn

    model = joblib.load(sys.argv[1])
    mlflow.sklearn.save_model(model, "model", serialization_format="cloudpickle")
else:
    program = Path(sys.executable).with_name("mlflow")
    where = ["--host", "127.0.0.1", "--port", sys.argv[2]]
    options = ["--env-manager", "local", "--workers", "1"]
    command = [str(program), "models", "serve", "-m", "model", *where, *options]
    os.environ["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    os.execv(program, command)  # noqa: S606
