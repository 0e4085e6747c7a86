"""Whatever stands in a registry and should not: it is said, it is repaired, and nothing fails."""

import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from services import Service

from iris_serve.__main__ import main
from iris_serve.cli.server import make_app
from iris_serve.cli.settings import Settings
from iris_serve.model.atomic import ArtifactError, sha256, to_json
from iris_serve.registry import registry as registry_module
from iris_serve.registry import states
from iris_serve.registry.records import Event
from iris_serve.registry.registry import (
    NoModelError,
    Registry,
    current,
    events_folder,
    history,
    no_promotion,
    promote,
)
from iris_serve.registry.repair import repair
from iris_serve.registry.states import exposed, registry_states
from iris_serve.registry.verify import effective_history, rollback, verify
from iris_serve.service.live import LivePredictor
from iris_serve.training.retrain import Parameters, train

REPAIR = "python -m iris_serve repair"


def ask(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def trio(three):
    """A registry with three versions; `current` points at 1, then 2, then 3."""
    registry = Registry(three)
    for version in (2, 3):
        promote(registry, version, f"version {version}")
    return registry


def client_of(registry):
    app = make_app(Settings(models=str(registry.folder.parent), name=registry.name))
    app.extensions["live"].stop()
    return app.test_client()


def event_file(registry, number, alias="current"):
    return events_folder(registry, alias) / f"{number}.json"


# The newest event is damaged


def cut_off(path):
    path.write_bytes(path.read_bytes()[:50])


def make_directory(path):
    path.unlink()
    path.mkdir()


def make_link(path):
    path.rename(path.parent.parent / "elsewhere.json")
    path.symlink_to("../elsewhere.json")


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def copy_of_another_alias(path):
    path.write_text(path.read_text().replace('"alias": "current"', '"alias": "canary"'))


DAMAGES = [cut_off, make_directory, make_link, make_pipe, copy_of_another_alias]
BY_NAME = {"ids": lambda function: function.__name__}


@pytest.mark.parametrize("damage", DAMAGES, **BY_NAME)
def test_a_damaged_newest_event_is_repaired_by_one_command_and_everything_works_again(trio, damage):
    models = trio.folder.parent
    damage(event_file(trio, 3))
    for words in (("promote", 2), ("rollback",), ("versions",), ("history",)):
        assert REPAIR in ask(*words, "--models", models).output
    done = ask("repair", "--models", models)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "iris: alias current: event 3 was damaged; it is kept as 3.json.set-aside",
        "iris: current is version 2",
        "iris: nothing else is wrong",
    ]
    assert verify(trio) == []
    assert ask("promote", 3, "--models", models).output == "iris: current is version 3, was 2\n"
    assert ask("rollback", "--models", models).output == "iris: current is version 2 again, was 3\n"
    train(models, Parameters(n_estimators=1, promote="always"))
    assert current(trio).version == 4


@pytest.mark.parametrize("damage", DAMAGES, **BY_NAME)
def test_what_is_set_aside_is_kept_and_recorded(trio, damage):
    path = event_file(trio, 3)
    damage(path)
    before = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(before.st_mode) else None
    (event,) = repair(trio)
    kept = path.parent / event.repaired.kept
    assert os.path.samestat(kept.lstat(), before)
    assert event.repaired.number == event.repaired.first == 3
    assert event.repaired.sha256 == (None if content is None else sha256(content))
    assert history(trio)[-1] == event
    newest = ask("history", "--models", trio.folder.parent).output.splitlines()[0]
    assert newest.endswith("2 -> 2  repair: event 3 was damaged; it is kept as 3.json.set-aside")


def test_retrain_ends_with_a_message_that_names_the_command(trio):
    cut_off(event_file(trio, 3))
    with pytest.raises(ArtifactError, match=REPAIR):
        train(trio.folder.parent, Parameters(n_estimators=1))


def test_a_running_service_answers_all_the_while_and_follows_the_repair(trio):
    live = LivePredictor(trio)
    live.stop()
    cut_off(event_file(trio, 3))
    live.poll()
    assert live.pin().version == 3
    assert REPAIR in live.trouble
    assert str(trio.folder.parent) not in live.trouble
    repair(trio)
    live.poll()
    assert (live.pin().version, live.trouble) == (2, None)


def test_an_alias_whose_only_event_was_damaged_points_nowhere_and_says_what_to_do(registry):
    cut_off(event_file(registry, 1))
    done = ask("repair", "--models", registry.folder.parent)
    assert done.exit_code == 1
    assert "has versions [1], but none is promoted" in done.output
    with pytest.raises(NoModelError, match="promote VERSION"):
        current(registry)
    with pytest.raises(NoModelError):
        rollback(registry)
    assert promote(registry, 1, "as it was", expected=None).previous is None
    assert ask("repair", "--models", registry.folder.parent).exit_code == 0
    assert verify(registry) == []


def test_repair_leaves_a_sound_registry_as_it_is(trio):
    before = {path: path.read_bytes() for path in trio.folder.rglob("*") if path.is_file()}
    done = ask("repair", "--models", trio.folder.parent)
    assert (done.exit_code, done.output) == (0, "iris: there is nothing to repair\n")
    assert before == {path: path.read_bytes() for path in trio.folder.rglob("*") if path.is_file()}


def test_an_event_that_may_not_be_read_is_not_taken_for_a_damaged_one(trio, monkeypatch):
    genuine, path = Path.open, event_file(trio, 3)
    cut_off(path)

    def denied(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return genuine(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)
    done = ask("repair", "--models", trio.folder.parent)
    assert (done.exit_code, "Permission denied" in done.output) == (1, True)
    assert not list(path.parent.glob("*.set-aside"))


def test_a_repaired_history_is_rolled_back_as_if_the_damaged_event_had_never_been(trio):
    cut_off(event_file(trio, 2))
    repair(trio)
    assert effective_history(history(trio)) == [1, 3]
    assert rollback(trio).version == 1


def test_what_is_damaged_twice_is_kept_twice(trio):
    for kept in ("3.json.set-aside", "3.json.set-aside-2"):
        cut_off(event_file(trio, 3))
        assert repair(trio)[0].repaired.kept == kept
    assert verify(trio) == []


@pytest.mark.parametrize("lost", [(1,), (2,), (1, 2)])
def test_missing_events_are_said_and_recorded(trio, lost):
    for number in lost:
        event_file(trio, number).unlink()
    (issue,) = [issue for issue in verify(trio) if "missing" in issue]
    assert issue.startswith(
        f"alias current: event{'s 1 to 2 are' if len(lost) > 1 else f' {lost[0]} is'}"
    )
    (event,) = repair(trio)
    assert (event.repaired.first, event.repaired.number) == (lost[0], lost[-1])
    assert registry_states(trio) == []
    assert current(trio).version == 3


# Numbers that nothing leads to


def plant(registry, number):
    path = event_file(registry, number)
    shutil.copy(event_file(registry, 1), path)
    return path


def test_promoting_after_a_planted_number_is_refused_and_not_done_in_silence(trio):
    plant(trio, 999_999_999)
    models = trio.folder.parent
    for words in (("promote", 2), ("rollback",)):
        done = ask(*words, "--models", models)
        assert done.exit_code == 1
        assert "999999999.json is out of line" in done.output
        assert REPAIR in done.output
    with pytest.raises(ArtifactError, match="is out of line"):
        train(models, Parameters(n_estimators=1, promote="always"))
    assert any("is out of line" in issue for issue in verify(trio))
    assert ask("repair", "--models", models).exit_code == 0
    assert current(trio).version == 3
    assert ask("promote", 2, "--models", models).output == "iris: current is version 2, was 3\n"
    assert [event.version for event in history(trio)] == [1, 2, 3, 3, 2]


def test_a_number_that_is_planted_again_is_recorded_again(trio):
    for kept in ("999999999.json.set-aside", "999999999.json.set-aside-2"):
        plant(trio, 999_999_999)
        assert repair(trio)[0].repaired.kept == kept
    assert len(history(trio)) == 5


@pytest.mark.parametrize("name", ["02.json", "4.json.bak", "1000000000.json", "x.json", "4"])
def test_a_name_that_is_not_that_of_an_event_is_said(trio, name):
    (events_folder(trio, "current") / name).write_text("{}")
    (issue,) = verify(trio)
    assert f"{name} is not read: its name is not that of an event" in issue


def test_a_version_with_a_planted_number_does_not_stop_the_next_one(registry):
    (registry.folder / "999999999").mkdir()
    train(registry.folder.parent, Parameters(n_estimators=1))
    assert registry.versions() == [1, 2, 999_999_999]
    assert any("no training led to its number" in issue for issue in verify(registry))


# A repair that is killed


KILLED = """
import os, sys
from pathlib import Path
from iris_serve.registry import repair as module
from iris_serve.registry.registry import Registry
name, left, after = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "after"
owner = os if name.startswith("os.") else module
name = name.removeprefix("os.")
real = getattr(owner, name)
def die(*arguments, **options):
    global left
    left -= 1
    if not left:
        if after: real(*arguments, **options)
        os.kill(os.getpid(), 9)
    return real(*arguments, **options)
setattr(owner, name, die)
module.repair(Registry(Path(sys.argv[1])))
"""
STEPS = ["os.link", "os.replace", "os.rename", "write_new_file", "link_exclusive", "fsync_dir"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("damage", [cut_off, make_directory], **BY_NAME)
def test_a_kill_at_any_step_leaves_the_old_state_or_the_new_and_a_repair_goes_on(
    trio, damage, step, moment
):
    damage(event_file(trio, 3))
    event_file(trio, 1).unlink()
    plant_of = event_file(trio, 999_999_999)
    plant_of.write_bytes(to_json(history_of(event_file(trio, 2))))
    command = [sys.executable, "-c", KILLED, str(trio.folder.parent), step]
    killed = 0
    for left in range(1, 5):
        code = subprocess.run([*command, str(left), moment], check=False).returncode
        assert code in (0, -9)
        killed += code == -9
        assert current(trio).version == 2  # by the planted event, or by the repaired one
        whole = {path.name for path in plant_of.parent.iterdir() if not path.name.startswith(".")}
        assert {"2.json"} <= whole
        assert [n for n in whole if n.startswith("3.json")]  # never without a trace
        assert [n for n in whole if n.startswith("999999999.json")]
    repair(trio)
    assert killed
    assert registry_states(trio) == []
    assert current(trio).version == 2
    told = [event.repaired.number for event in history(trio) if event.repaired]
    assert told == [1, 3, 999_999_999]
    assert promote(trio, 3, "as it was").previous == 2
    left = {path.name for path in trio.folder.iterdir()}
    assert not [name for name in left if name.startswith(".staged")]


def history_of(path):
    return registry_module.EVENT.decode(path.read_bytes())


def test_two_repairs_at_once_set_one_event_aside_once(trio):
    cut_off(event_file(trio, 3))
    program = (
        "import sys; from pathlib import Path; from iris_serve.registry.registry import Registry"
    )
    program += (
        "; from iris_serve.registry.repair import repair; repair(Registry(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(trio.folder.parent)]
    both = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in both] == [0] * 4
    assert len(list(event_file(trio, 3).parent.glob("*.set-aside*"))) == 1
    assert verify(trio) == []


# Links, plain files, directories that can't be read


def move_away(path):
    path.rename(path.parent.parent / f"{path.name}-elsewhere")
    return path.parent.parent / f"{path.name}-elsewhere"


def link_model(registry):
    registry.folder.symlink_to(move_away(registry.folder))


def link_version(registry):
    path = registry.folder / "2"
    path.symlink_to(move_away(path))


def link_aliases(registry):
    path = registry.folder / "aliases"
    path.symlink_to(move_away(path))


def link_alias(registry):
    (registry.folder / "aliases" / "evil").symlink_to(registry.folder.parent)


def plain_version(registry):
    (registry.folder / "7").write_text("a plain file")


def plain_alias(registry):
    (registry.folder / "aliases" / "canary").write_text("a plain file")


def plain_aliases(registry):
    move_away(registry.folder / "aliases")
    (registry.folder / "aliases").write_text("a plain file")


def leading_zero(registry):
    (registry.folder / "02").mkdir()


def far_version(registry):
    (registry.folder / "999999999").mkdir()


def far_event(registry):
    plant(registry, 999_999_999)


def damaged_event(registry):
    cut_off(event_file(registry, 3))


STATES = {
    link_model: "is a symbolic link",
    link_version: "is a symbolic link",
    link_aliases: "is a symbolic link",
    link_alias: "is a symbolic link",
    plain_version: "is not a directory",
    plain_alias: "is not a directory",
    plain_aliases: "is not a directory",
    leading_zero: "its name is no number of a version",
    far_version: "is out of line",
    far_event: "is out of line",
    damaged_event: "is no promotion",
}
COMMANDS = [
    ("versions",),
    ("show", 1),
    ("show", "current"),
    ("history",),
    ("promote", 2),
    ("rollback",),
    ("verify",),
    ("repair",),
    ("predict", 6.1, 2.8, 4.7, 1.2),
    ("show", 7),
    ("show", 2),
]
ROUTES = [
    ("GET", "/models"),
    ("GET", "/models/iris"),
    ("GET", "/models/iris?limit=1&before=3"),
    *(("GET", f"/models/iris/aliases/{alias}") for alias in ("current", "evil", "canary")),
    *(
        ("GET", f"/models/iris/versions/{v}")
        for v in (1, 2, 7, 9, "current", "evil", "canary", "x")
    ),
    ("GET", "/models/iris/versions/2/notebook"),
    ("GET", "/v2/models/iris"),
    ("POST", "/v2/repository/index"),
    ("GET", "/v1/models/iris"),
    ("GET", "/readyz"),
]


@pytest.mark.parametrize("make", STATES, **BY_NAME)
def test_no_state_is_a_500_nor_tells_a_path_and_each_is_told(trio, make):
    client = client_of(trio)
    make(trio)
    for method, route in ROUTES:
        answer = client.open(route, method=method)
        assert answer.status_code in (200, 404, 503), (route, answer.data)
        text = answer.get_data(as_text=True)
        assert str(trio.folder.parent) not in text
        assert "Traceback" not in text
    for route in ("/models", "/models/iris"):
        answer = client.get(route)
        assert answer.status_code == 200
        told = answer.json["models"][0] if route == "/models" else answer.json
        words = "symbolic link" if make is link_model else STATES[make]
        assert words in told["trouble"]
    assert client.post("/predict", json={"features": [6.1, 2.8, 4.7, 1.2]}).status_code == 200


@pytest.mark.parametrize("make", STATES, **BY_NAME)
def test_no_command_ends_with_a_traceback_and_verify_and_repair_tell_each_state(trio, make):
    make(trio)
    for words in COMMANDS:
        if words[0] in ("promote", "rollback", "repair"):
            continue
        done = ask(*words, "--models", trio.folder.parent)
        assert done.exit_code in (0, 1), (words, done.output)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
    assert STATES[make] in ask("verify", "--models", trio.folder.parent).output
    for words in (("promote", 2), ("rollback",)):
        done = ask(*words, "--models", trio.folder.parent)
        assert done.exit_code in (0, 1)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
    done = ask("repair", "--models", trio.folder.parent)
    repaired = {far_event: "was out of line", damaged_event: "was damaged"}
    assert repaired.get(make, STATES[make]) in done.output
    assert done.exit_code == (0 if make in repaired else 1)


PLACES = ["", "aliases", "aliases/current", "2"]


def pretend_unreadable(monkeypatch, folder):
    """Let listing `folder`, and what is in it, fail as for a user who may not read it."""
    genuine = SimpleNamespace(listdir=os.listdir, scandir=os.scandir, open=os.open, lstat=os.lstat)
    inside = f"{folder}{os.sep}"

    def check(path):
        if isinstance(path, (str, Path)) and (
            str(path) == str(folder) or str(path).startswith(inside)
        ):
            raise PermissionError(13, "Permission denied", str(path))

    def wrap(name):
        def call(path=".", *arguments, **options):
            check(path)
            return getattr(genuine, name)(path, *arguments, **options)

        return call

    for name in ("listdir", "scandir", "open"):
        monkeypatch.setattr(os, name, wrap(name))
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, *rest, **o: str(path) != str(folder) and access(path, *rest, **o)
    )


@pytest.mark.parametrize("place", PLACES)
def test_a_directory_that_may_not_be_read_is_said_and_never_a_500(trio, place, monkeypatch):
    client = client_of(trio)
    with monkeypatch.context() as patched:
        pretend_unreadable(patched, trio.folder / place)
        for route in ("/models", "/models/iris"):
            answer = client.get(route)
            assert answer.status_code == 200
            told = answer.json["models"][0] if route == "/models" else answer.json
            assert "can't be read: Permission denied" in told["trouble"]
        for method, route in ROUTES:
            answer = client.open(route, method=method)
            assert answer.status_code in (200, 404, 503), (route, answer.data)
            assert str(trio.folder.parent) not in answer.get_data(as_text=True)
        for words in COMMANDS:
            done = ask(*words, "--models", trio.folder.parent)
            assert done.exit_code in (0, 1), (words, done.output)
            assert done.exception is None or isinstance(done.exception, SystemExit), words
        done = ask("verify", "--models", trio.folder.parent)
        assert (done.exit_code, "Permission denied" in done.output) == (1, True)


# Long histories, and many versions


@pytest.fixture(scope="module")
def long(trained, tmp_path_factory):
    """A registry with 10,000 versions, nearly all of them empty, and 20,000 events."""
    models = shutil.copytree(trained, tmp_path_factory.mktemp("long") / "models")
    registry = Registry(models)
    for number in range(2, 10_001):
        (registry.folder / str(number)).mkdir()
    content = event_file(registry, 1).read_bytes()
    for number in range(2, 20_001):
        event_file(registry, number).write_bytes(content)
    return registry


def test_a_message_about_a_missing_version_names_at_most_a_few(long):
    client = client_of(long)
    for version in ("10001", "latest"):
        answer = client.get(f"/models/iris/versions/{version}")
        assert (answer.status_code, len(answer.data) < 1000) == (404, True)
        assert "[9998, 9999, 10000] (the last of 10000)" in answer.json["detail"]
    assert len(str(no_promotion(long, "canary"))) < 300
    assert len(ask("show", 10_001, "--models", long.folder.parent).output) < 300


def test_every_version_and_every_event_can_be_reached_by_turning_pages(long):
    client = client_of(long)
    found, link, seen = client.get("/models/iris?before=301").json, "", []
    while True:
        assert len(found["versions"]) <= 100
        seen = [int(v["version"]) for v in found["versions"]] + seen
        link = found["next"]
        if not link:
            break
        found = client.get(f"/models/{link}").json
    assert seen == list(range(1, 301))
    assert found["count"] == 10_000
    alias = client.get("/models/iris?limit=7").json["aliases"]["current"]
    assert (alias["promotions"], len(alias["history"])) == (20_000, 7)
    assert alias["next"] == "iris/aliases/current?before=19994&limit=7"
    older = client.get(f"/models/{alias['next']}").json
    assert older["next"] == "current?before=19987&limit=7"
    last = client.get("/models/iris/aliases/current?before=3").json
    assert (len(last["history"]), last["next"], last["promotions"]) == (2, None, 20_000)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "before=x", "before=1&before=2"])
@pytest.mark.parametrize("path", ["/models/iris", "/models/iris/aliases/current"])
def test_a_wrong_page_is_a_400_that_says_what_is_expected(registry, path, query):
    answer = client_of(registry).get(f"{path}?{query}")
    assert answer.status_code == 400
    assert "limit" in answer.json["detail"] or "before" in answer.json["detail"]


def test_pages_are_in_the_openapi_document(registry):
    paths = client_of(registry).get("/openapi.json").json["paths"]
    for path in ("/models/{name}", "/models/{name}/aliases/{alias}"):
        parameters = {p["name"]: p for p in paths[path]["get"]["parameters"]}
        assert parameters["limit"]["schema"]["maximum"] == 100
        assert "before" in parameters
        assert "400" in paths[path]["get"]["responses"]


def test_only_what_is_shown_of_a_long_history_is_read(long, monkeypatch):
    read, genuine = [], registry_module.read_artifact_file

    def counted(folder, name):
        read.append(name)
        return genuine(folder, name)

    monkeypatch.setattr(registry_module, "read_artifact_file", counted)
    done = ask("history", "--limit", 5, "--models", long.folder.parent)
    assert len(read) <= 8
    lines = done.output.splitlines()
    assert len([line for line in lines if " -> " in line]) == 5
    assert lines[-1] == "not listed: 19995 older; --limit 20000 lists all"
    read.clear()
    client_of(long).get("/models/iris/aliases/current?limit=5")
    assert len(read) <= 10


def test_versions_lists_the_newest_first_and_says_how_many_more_there_are(long):
    lines = ask("versions", "--limit", 3, "--models", long.folder.parent).output.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["version", "10000", "9999", "9998"]
    assert lines[-1] == "not listed: 9997 older; --limit 10000 lists all"
    assert len(ask("versions", "--models", long.folder.parent).output.splitlines()) == 102


def test_history_lists_the_newest_first(trio):
    lines = ask("history", "--models", trio.folder.parent).output.splitlines()
    assert [line.split("  ")[2] for line in lines] == ["2 -> 3", "1 -> 2", "- -> 1"]


# A registry that others may write to


def test_what_others_may_write_to_is_said_by_verify_with_what_to_do(registry):
    folder = registry.folder
    assert verify(registry) == []
    (folder / "1" / "card.json").chmod(0o666)
    (folder / "aliases" / "current").chmod(0o777)
    (issue,) = verify(registry)
    assert "others may write to" in issue
    assert "1 more" in issue
    command = issue.rpartition(": ")[2]
    assert command == f"chmod -R go-w {folder}"
    subprocess.run(command, shell=True, check=True)  # noqa: S602
    assert verify(registry) == []


def test_a_models_directory_that_others_may_write_to_is_said_unless_it_is_sticky(registry):
    models = registry.folder.parent
    models.chmod(0o777)
    (issue,) = exposed(registry)
    assert issue.endswith(f"chmod go-w {models}")
    models.chmod(0o1777)
    assert exposed(registry) == []


def test_a_registry_made_with_the_umask_0_is_said(tmp_path):
    before = os.umask(0)
    try:
        train(tmp_path / "models", Parameters(n_estimators=1))
    finally:
        os.umask(before)
    (issue,) = verify(Registry(tmp_path / "models"))
    assert "others may write to" in issue
    assert issue.endswith(f"chmod -R go-w {tmp_path}/models/iris && chmod go-w {tmp_path}/models")


def test_the_group_of_a_user_alone_is_not_taken_for_others(registry, monkeypatch):
    path = registry.folder / "1" / "card.json"
    path.chmod(0o664)
    monkeypatch.setattr(states, "is_private_group", lambda found: True)
    assert exposed(registry) == []
    monkeypatch.setattr(states, "is_private_group", lambda found: False)
    assert len(exposed(registry)) == 1


def test_only_what_it_takes_to_serve_is_looked_at_for_a_start(long, monkeypatch):
    looked = []
    monkeypatch.setattr(states, "others_may_write", lambda path: looked.append(path))
    assert exposed(long, 1) == []
    assert len(looked) < 20


def test_a_history_that_was_never_repaired_can_be_read_by_earlier_releases():
    event = Event(version=1, card="", previous=None, when=datetime.now(UTC), why="x")
    assert "repaired" not in json.loads(to_json(event))


@pytest.mark.parametrize("careless", [False, True])
def test_a_start_says_in_one_line_that_others_may_write_and_serves_all_the_same(models, careless):
    if careless:
        (models / "iris" / "1").chmod(0o777)
    with Service(models) as service:
        service.ready()
        service.process.terminate()
        told = service.process.stderr.read().splitlines()
    lines = [line for line in told if "others may write to" in line]
    assert len(lines) == careless
    assert all(line.endswith(f"chmod -R go-w {models / 'iris'}") for line in lines)
