"""What the tests of deployments share: directories, and the services that they start."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml
from services import free_port, until

HOST = "app.example"
NAMESPACE = ["unshare", "--mount", "--propagation", "private"]


def unpacked(folder, place):
    """The wheel that the deployment `folder` brings, unpacked into `place`."""
    (wheel,) = (folder / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    place.chmod(0o755)  # pytest's directories are for their owner alone
    return place


def docker_command(folder):
    """The command that the Dockerfile in `folder` ends with, and its models directory."""
    lines = (folder / "Dockerfile").read_text("utf-8").replace("\\\n", "").splitlines()
    words = json.loads(lines[-1].removeprefix("CMD "))
    (copied,) = [line.split() for line in lines if line.startswith("COPY models ")]
    return words, copied[2]


def start_command(folder):
    """How a platform starts the service of the deployment `folder`, and its models directory."""
    if (folder / "Procfile").exists():
        (line,) = (folder / "Procfile").read_text("utf-8").splitlines()
        return ["sh", "-c", line.removeprefix("web: ")], "models"
    if (folder / "render.yaml").exists():
        (service,) = yaml.safe_load((folder / "render.yaml").read_text("utf-8"))["services"]
        return ["sh", "-c", service["startCommand"]], "models"
    if (folder / "kserve.yaml").exists():
        runtime, service = yaml.safe_load_all((folder / "kserve.yaml").read_text("utf-8"))
        (container,) = runtime["spec"]["containers"]
        more = service["spec"]["predictor"]["model"].get("args", [])
        words = [*container["command"], *container["args"], *more]
        return [w.replace("{{.Name}}", service["metadata"]["name"]) for w in words], "/mnt/models"
    return docker_command(folder)


class Deployed:
    """The service of a deployment, started as its platform does; a with statement ends it."""

    def __init__(self, folder, site, command=None, **variables):
        words, models = start_command(folder)
        self.port = free_port()
        self.name = json.loads(next((folder / "models").glob("*/*/card.json")).read_text())["name"]
        # Where a platform has mounted the models, or chosen a fixed port, this machine has not.
        words = [
            w.replace(models, str(folder / "models")) for w in words if models != "models"
        ] or words
        words = [w.replace("--port=8080", f"--port={self.port}") for w in words]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(site),
            "PORT": str(self.port),
            **variables,
        }
        self.process = subprocess.Popen(
            command(words, environment) if command else words,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self):
        until(lambda: self.process.poll() is not None or self.is_well(), 60)
        if self.process.poll() is not None:
            raise AssertionError(self.process.stderr.read())
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        self.process.communicate(timeout=30)

    def ask(self, path, body=None):
        """The status and the JSON of a reply, to a request with a foreign name in `Host`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {"Host": HOST}
            connection.request("POST" if body else "GET", path, body, headers)
            answer = connection.getresponse()
            said = answer.read()
            return answer.status, json.loads(said) if said.startswith(b"{") else said.decode()
        finally:
            connection.close()

    def is_well(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/readyz")[0] == 200
        return False

    def stop(self):
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.process.wait(30)


def why_no_namespace():
    """Why a process can't be shut in here; an empty text if it can."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("setpriv"):
        return "shutting a process in needs Linux, root and setpriv"
    done = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False)
    return "unshare is not permitted here" if done.returncode else ""


SHUT_IN = """
set -eu
prefix=$1 folder=$2 site=$3; shift 3
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/prefix /mnt/models /mnt/site
mount --bind "$prefix" /mnt/prefix
mount --bind "$folder/models" /mnt/models
mount --bind "$site" /mnt/site
top=/$(echo "$prefix" | cut -d/ -f2)
if [ "$top" = /root ]; then
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p "$prefix"
    mount --bind /mnt/prefix "$prefix"
fi
mount -o remount,bind,ro /
cd /mnt
unset HOME
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set -all "$@"
"""


def shut_in(folder, site):
    """A function that puts a command into a read-only root, as user 10001, without a home."""

    def command(words, environment):
        environment |= {"TMPDIR": "/dev/shm", "PYTHONPATH": "/mnt/site"}  # noqa: S108
        inside = [word.replace(str(folder / "models"), "/mnt/models") for word in words]
        places = [sys.base_prefix, str(folder), str(site)]
        return [*NAMESPACE, "sh", "-c", SHUT_IN, "sh", *places, *inside]

    return command
