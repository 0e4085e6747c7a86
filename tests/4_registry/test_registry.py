"""Versions are numbered, whole and never lost, however many processes add them or are killed."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from sklearn.linear_model import LogisticRegression

import iris_serve.registry.verify
from iris_serve.__main__ import main
from iris_serve.data.table import iris
from iris_serve.model import atomic
from iris_serve.model.atomic import ArtifactError, sha256, to_json, write_new_file
from iris_serve.model.card import CARD_FILE, read_card
from iris_serve.model.load import open_model
from iris_serve.model.save import FOREST_FILE, MODEL_FILE
from iris_serve.registry.records import RUN_FILE, read_run, user_name
from iris_serve.registry.registry import (
    ConflictError,
    NoModelError,
    Registry,
    aliases,
    current,
    history,
    open_predictor,
    open_version,
    promote,
    replace_run,
    stage,
)
from iris_serve.registry.verify import effective_history, resolve, rollback, verify
from iris_serve.service.errors import UntrustedError
from iris_serve.service.live import LivePredictor
from iris_serve.service.versions import Versions
from iris_serve.training.retrain import Parameters, train
from iris_serve.wsgi import finish_first_promotion


@pytest.fixture
def pair(registry):
    """A registry with two versions, the second one current."""
    train(registry.folder.parent, Parameters(n_estimators=1, promote="always"))
    return registry


def start(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **options)


def entries(registry):
    """The names of everything in the registry's directory."""
    return sorted(path.name for path in registry.folder.iterdir())


# Many processes, and processes that are killed


AT_ONCE = """
import os, sys
from pathlib import Path
from iris_serve.training.retrain import Parameters, train
children = []
for i in range(8):
    child = os.fork()
    if not child:
        train(Path(sys.argv[1]), Parameters(n_estimators=1, seed=i, promote="always"))
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_eight_processes_that_publish_and_promote_at_once_make_one_history(tmp_path):
    assert start(AT_ONCE, tmp_path).wait(timeout=120) == 0
    registry = Registry(tmp_path)
    past = history(registry)
    assert registry.versions() == list(range(1, 9))
    assert sorted(event.version for event in past) == list(range(1, 9))
    assert [event.previous for event in past] == [None, *(event.version for event in past[:-1])]
    assert verify(registry) == []
    assert entries(registry) == sorted([*"12345678", "aliases"])


DIE = """
import importlib, os, sys
from pathlib import Path
from iris_serve.training.retrain import Parameters, train
models, module, function, left, after = Path(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:])
module = importlib.import_module(module)
real = getattr(module, function)
def die(*arguments):
    global left
    left -= 1
    if not left:
        if after: real(*arguments)
        os.kill(os.getpid(), 9)
    return real(*arguments)
setattr(module, function, die)
train(models, Parameters(n_estimators=1, promote="always"))
"""
SAVE, REGISTRY = "iris_serve.model.save", "iris_serve.registry.registry"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("module", "function", "call", "left_before", "left_after"),
    [
        (SAVE, "write_new_file", 1, "nothing", "nothing"),
        (SAVE, "write_new_file", 2, "nothing", "nothing"),
        (REGISTRY, "write_new_file", 1, "nothing", "nothing"),
        (REGISTRY, "publish_dir", 1, "nothing", "published"),
        (REGISTRY, "write_new_file", 2, "published", "published"),
        ("os", "link", 1, "published", "promoted"),
    ],
)
def test_a_kill_at_any_write_leaves_the_old_state_or_the_new_one(
    models, module, function, call, left_before, left_after, after
):
    arguments = [str(models), module, function, str(call), str(int(after))]
    done = subprocess.run([sys.executable, "-c", DIE, *arguments], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    registry, left = Registry(models), left_after if after else left_before
    assert registry.versions() == ([1] if left == "nothing" else [1, 2])
    assert current(registry).version == (2 if left == "promoted" else 1)
    for version in registry.versions():
        assert read_run(registry.path(version)).version == version
    following = train(models, Parameters(n_estimators=1)).version
    assert following == (2 if left == "nothing" else 3)


KILL_AT_EVERY_STEP = """
import json, os, shutil, sys
from pathlib import Path
from iris_serve.data.table import iris
from iris_serve.registry.registry import Registry, current, history, promote, stage
from iris_serve.registry.verify import rollback, verify
from iris_serve.training.import_model import add
from iris_serve.training.retrain import Parameters, retrain, train

def retrain_one(models):
    retrain(models, Parameters(n_estimators=2, promote="always"))

def train_one(models): train(models, Parameters(n_estimators=1, promote="always"))
def promote_one(models): promote(Registry(models), 1, "why", expected=2)
def rollback_one(models): rollback(Registry(models))
def add_one(models): add(Registry(models), models.parent / "own.pkl", iris(), "always")

WRITES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir"}
SYSTEM = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def die_at(step, models):
    left = step
    def hook(event, arguments):
        nonlocal left
        writes = event in WRITES or (event == "open" and arguments[2] & SYSTEM)
        if writes and (isinstance(arguments[0], int) or str(models) in str(arguments[0])):
            left -= 1
            if not left: os.kill(os.getpid(), 9)
    sys.addaudithook(hook)

def look_at(registry, old):
    there, now = registry.versions(), current(registry).version
    cut_off = 3 in there and 3 not in [event.version for event in history(registry)]
    found = [issue.partition(",")[0] for issue in verify(registry)]
    assert found == ["version 3: its run record says promoted"] * cut_off, verify(registry)
    assert there in (old, [*old, 3]), there
    names = set(os.listdir(registry.folder)) - set(map(str, there)) - {"aliases"}
    assert all(name.startswith(".staged-") for name in names), names
    with stage(registry): pass
    assert set(os.listdir(registry.folder)) == set(map(str, there)) | {"aliases"}
    promote(registry, 1, "the next one")
    return now

models, action, stride = Path(sys.argv[1]), globals()[sys.argv[2]], int(sys.argv[3])
step, seen = 1 - stride, []
action(Path(shutil.copytree(models, models.parent / "warm-up")))
while True:
    step += stride
    copy = Path(shutil.copytree(models, models.parent / f"step-{step}"))
    child = os.fork()
    if not child:
        die_at(step, copy)
        action(copy)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -9), code
    seen.append(look_at(Registry(copy), [1, 2]))
    if code == 0: break
print(json.dumps(seen))
"""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("action", "new", "stride"),
    [
        ("train_one", 3, 1),
        ("promote_one", 1, 1),
        ("rollback_one", 1, 1),
        ("add_one", 3, 1),
        ("retrain_one", 3, 11),
        pytest.param("retrain_one", 3, 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_step_leaves_the_old_state_or_the_new_one_and_leftovers_are_removed(
    pair, action, new, stride
):
    models = pair.folder.parent
    joblib.dump(
        LogisticRegression(max_iter=1000).fit(iris().X, iris().y), models.parent / "own.pkl"
    )
    command = [sys.executable, "-c", KILL_AT_EVERY_STEP, models, action, str(stride)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen) == {2, new}
    assert seen == sorted(seen, reverse=new < 2)
    assert len(seen) * stride >= 8


# Staged directories and what is left of them


HOLD = """
import sys
from pathlib import Path
from iris_serve.registry.registry import Registry, stage
with stage(Registry(Path(sys.argv[1]))) as staged:
    (staged / "half").write_text("done")
    print(staged.name, flush=True)
    sys.stdin.read()
"""


def test_a_staged_directory_is_removed_only_when_no_living_process_has_its_lock(registry):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with start(HOLD, registry.folder.parent, **pipes) as worker:
        name = worker.stdout.readline().strip()
        with stage(registry):
            assert (registry.folder / name / "half").exists()
        worker.kill()
        worker.wait(timeout=30)
    with stage(registry):
        assert not (registry.folder / name).exists()
    assert entries(registry) == ["1", "aliases"]


def test_a_staged_directory_without_a_lock_and_a_lock_without_a_directory_are_removed(registry):
    (registry.folder / ".staged-one").mkdir()
    (registry.folder / ".staged-two.lock").touch()
    with stage(registry) as staged:
        assert entries(registry) == [staged.name, f"{staged.name}.lock", "1", "aliases"]
    assert entries(registry) == ["1", "aliases"]


def test_a_lock_that_was_removed_before_it_was_locked_is_made_again_by_another_name(
    registry, monkeypatch
):
    real, tries = atomic.try_lock, []

    def removed_first(file, wait=False):
        tries.append(file.name)
        if len(tries) == 1:
            os.unlink(file.name)
        return real(file, wait)

    monkeypatch.setattr(atomic, "try_lock", removed_first)
    with stage(registry) as staged:
        assert len(tries) == len(set(tries)) == 2
        assert atomic.remove_stale(registry.folder) == []
        assert staged.is_dir()
    assert entries(registry) == ["1", "aliases"]


def test_a_file_system_without_locks_can_be_used_and_nothing_is_removed_from_it(
    registry, monkeypatch
):
    monkeypatch.setattr(atomic, "try_lock", lambda file, wait=False: False)
    with stage(registry) as staged:
        with stage(registry) as other:
            assert staged.is_dir()
            assert other.is_dir()
        assert staged.is_dir()
    assert entries(registry) == ["1", "aliases"]


def no_links(*arguments, **options):
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_without_hard_links_promotes_all_the_same(pair, monkeypatch):
    monkeypatch.setattr("os.link", no_links)
    promote(pair, 1, "no links")
    promote(pair, 2, "none at all")
    assert [(e.version, e.previous) for e in history(pair)] == [(1, None), (2, 1), (1, 2), (2, 1)]
    assert verify(pair) == []


# Names, numbers and what lies in between


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "A", "1", "a" * 65, "a\n", "ä", "-x"]
)
def test_a_name_that_could_leave_the_directory_is_refused(tmp_path, registry, name):
    with pytest.raises(ValueError, match="must be 1 to 64"):
        Registry(tmp_path, name)
    with pytest.raises(ValueError, match="must be 1 to 64"):
        promote(registry, 1, "why", alias=name)


def test_only_numbers_are_listed_as_versions(registry):
    for name in (".staged-1", "2.bak", "02", "-3", "x"):
        (registry.folder / name).mkdir()
    assert registry.versions() == [1]


def test_only_numbers_are_read_as_promotions(registry):
    folder = registry.folder / "aliases" / "current"
    for name in (".0123456789abcdef", "2.json.bak", "02.json", "x.json", "-3.json", "0.json"):
        (folder / name).write_text("junk")
    assert [event.version for event in history(registry)] == [1]


def test_a_missing_version_or_alias_is_answered_with_what_to_do(tmp_path, registry):
    with pytest.raises(NoModelError, match="python -m iris_serve train"):
        current(Registry(tmp_path / "empty"))
    with pytest.raises(NoModelError, match=r'no alias "canary" \(aliases: current\).*promote VERS'):
        current(registry, alias="canary")


DAMAGED_JSON = {
    "cut off": b'{"version": 1',
    "incomplete": b'{"version": 1}',
    "nested too deeply": b'{"version":' + b"[" * 100_000,
    "not text": b'{"why": "\xff"}',
}


@pytest.mark.parametrize("damaged", DAMAGED_JSON.values(), ids=DAMAGED_JSON)
def test_a_damaged_promotion_is_an_error_and_not_skipped(registry, damaged):
    (registry.folder / "aliases" / "current" / "2.json").write_bytes(damaged)
    for read in (current, history):
        with pytest.raises(ArtifactError, match=r"2\.json is no promotion"):
            read(registry)


@pytest.mark.parametrize("damaged", DAMAGED_JSON.values(), ids=DAMAGED_JSON)
def test_a_damaged_run_record_is_an_error_that_names_it(registry, damaged):
    (registry.path(1) / RUN_FILE).write_bytes(damaged)
    with pytest.raises(ArtifactError, match=r"run\.json is not a run record"):
        read_run(registry.path(1))


@pytest.mark.parametrize("deleted", [1, 2])
def test_a_promotion_that_was_deleted_does_not_stop_the_next_one(registry, deleted):
    promote(registry, 1, "second")
    promote(registry, 1, "third")
    first = history(registry)[0].why
    (registry.folder / "aliases" / "current" / f"{deleted}.json").unlink()
    promote(registry, 1, "fourth")
    left = [first, "second", "third"]
    del left[deleted - 1]
    assert [event.why for event in history(registry)] == [*left, "fourth"]


def overtake(monkeypatch, *arguments, **options):
    """Let another promotion come first, just before the next one writes its event."""

    def overtaken(path, data):
        monkeypatch.setattr("iris_serve.registry.registry.write_new_file", write_new_file)
        promote(*arguments, **options)
        write_new_file(path, data)

    monkeypatch.setattr("iris_serve.registry.registry.write_new_file", overtaken)


def test_a_promotion_that_comes_second_names_the_one_before_it(registry, monkeypatch):
    train(registry.folder.parent, Parameters(n_estimators=1, promote="never"))
    train(registry.folder.parent, Parameters(n_estimators=1, promote="never"))
    overtake(monkeypatch, registry, 2, "the faster one")
    promote(registry, 3, "the slower one")
    assert [(e.version, e.previous) for e in history(registry)] == [(1, None), (2, 1), (3, 2)]


def test_of_two_promotions_that_expect_the_same_version_one_wins(pair, monkeypatch):
    overtake(monkeypatch, pair, 1, "the faster one", expected=2)
    with pytest.raises(ConflictError):
        promote(pair, 2, "the slower one", expected=2)
    assert [event.why for event in history(pair)][-1] == "the faster one"


def test_a_promotion_that_expects_another_version_is_a_conflict(pair):
    with pytest.raises(
        ConflictError, match="current points at version 2 now, and not at version 1"
    ):
        promote(pair, 1, "better", expected=1)
    with pytest.raises(ConflictError, match="and not at no version"):
        promote(pair, 1, "the first", expected=None)
    with pytest.raises(ConflictError, match="canary points at no version now"):
        promote(pair, 1, "better", alias="canary", expected=1)
    assert promote(pair, 1, "the first", alias="canary", expected=None).previous is None
    assert promote(pair, 1, "better", expected=2).previous == 2


def test_the_number_of_a_version_that_was_removed_is_never_used_again(pair):
    shutil.rmtree(pair.path(2))
    run = train(pair.folder.parent, Parameters(n_estimators=2, promote="never"))
    assert run.version == 3
    # Now it is renamed by hand, and its record adapted.
    pair.path(3).rename(pair.folder / "2")
    exchange(pair.path(2), read_card(pair.path(2)), number=2)
    with pytest.raises(ArtifactError, match="is not the card that was promoted"):
        resolve(pair, "current")
    assert any("is not the card that was promoted" in issue for issue in verify(pair))


@pytest.mark.parametrize("notebook", [None, "0" * 64])
def test_a_run_record_is_replaced_in_one_step_and_says_so(registry, notebook):
    before = read_run(registry.path(1))
    wanted = replace(before, card="", promoted=False, why="not better", notebook=notebook)
    written = replace_run(registry, wanted)
    assert read_run(registry.path(1)) == written
    assert (written.card, written.promoted) == (before.card, False)
    assert written.why.startswith("not better (judged again, because another version")
    assert ("the executed notebook shows the earlier verdict" in written.why) == bool(notebook)
    assert entries(registry) == ["1", "aliases"]


# Damaged and exchanged versions


def flip(path):
    data = bytearray(path.read_bytes())
    # The words of a verdict are for people: of a run record, the digests are what is checked.
    place = data.index(b'"card"') + 20 if path.name == RUN_FILE else len(data) // 2
    data[place] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def replace_by_link(path):
    path.rename(path.parent.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent.parent / "elsewhere")


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", [CARD_FILE, MODEL_FILE, FOREST_FILE, RUN_FILE])
@pytest.mark.parametrize(
    "damage",
    [flip, truncate, os.unlink, replace_by_link, replace_by_pipe],
    ids=lambda f: f.__name__,
)
def test_a_damaged_version_is_found_by_verify_and_never_promoted(registry, name, damage):
    damage(registry.path(1) / name)
    assert [
        issue for issue in verify(registry) if issue.startswith("version 1: ") and name in issue
    ]
    with pytest.raises(ArtifactError, match=name):
        promote(registry, 1, "it looked fine")
    assert len(history(registry)) == 1


def exchange(path, card, number=None):
    """Let the version in `path` have this `card`, with a run record that agrees with it."""
    (path / CARD_FILE).write_bytes(to_json(card))
    record = replace(read_run(path), card=sha256(to_json(card)))
    record = record if number is None else replace(record, version=number)
    (path / RUN_FILE).write_bytes(to_json(record))


def test_a_version_that_answers_its_golden_rows_wrongly_is_never_promoted(registry):
    run = train(registry.folder.parent, Parameters(n_estimators=2, promote="never"))
    path = registry.path(run.version)
    card = read_card(path)
    wrong = replace(card.golden, answers=(*card.golden.answers[:-1], 9))
    exchange(path, replace(card, golden=wrong))
    with pytest.raises(ArtifactError, match="golden rows wrongly"):
        promote(registry, run.version, "it looked fine")
    assert any("golden rows wrongly" in issue for issue in verify(registry))


def test_a_version_that_was_exchanged_as_a_whole_is_not_the_one_that_was_promoted(pair):
    promote(pair, 1, "for the auditors", alias="audited")
    exchange(pair.path(1), replace(read_card(pair.path(1)), source="another program"))
    for alias in ("current", "canary"):
        with pytest.raises(ArtifactError, match="is not the card that was promoted"):
            promote(pair, 1, "it agrees with itself", alias)
    with pytest.raises(ArtifactError, match="another card than the one that was promoted"):
        open_predictor(pair, 1)
    (issue,) = verify(pair)
    assert issue.startswith("version 1: ")
    assert issue.endswith("is not the card that was promoted")


def plant(path, trap, *, card=False, record=False):
    """Put a pickle that is a trap in the place of the model of `path`, in a version without forest.

    With `card` the card describes it, and with `record` the run record describes that card.
    """
    planted = pickle.dumps(trap)
    (path / MODEL_FILE).write_bytes(planted)
    (path / FOREST_FILE).unlink(missing_ok=True)
    described = replace(read_card(path), files={MODEL_FILE: sha256(planted)})
    if card:
        (path / CARD_FILE).write_bytes(to_json(described))
    if record:
        exchange(path, described)


CONTRADICTIONS = {
    "the file is not the one of the card": {},
    "the card is not the one of the record": {"card": True},
    "the record is not the one of the promotion": {"card": True, "record": True},
}


@pytest.mark.parametrize("made", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_no_pickle_is_opened_where_card_record_and_promotion_contradict(pair, trap, made):
    plant(pair.path(1), trap, **made)
    assert [issue for issue in verify(pair) if issue.startswith("version 1: ")]
    assert verify(pair, 1)
    for failing in (
        lambda: promote(pair, 1, "it looked fine"),
        lambda: open_predictor(pair, 1),
        lambda: rollback(pair),
        lambda: Versions(stopped(pair), pickles=True).get(1),
        lambda: finish_first_promotion(pair, pickles=True),
    ):
        with contextlib.suppress(ArtifactError, UntrustedError):
            failing()
    for command in (["verify"], ["verify", "1"], ["promote", "1"], ["predict", "--version", "1"]):
        options = [
            "--models",
            str(pair.folder.parent),
            *(["1"] * 4 if "predict" in command else []),
        ]
        assert CliRunner().invoke(main, [*command, *options]).exit_code == 1
    assert not Path(trap.marker).exists()
    assert current(pair).version == 2


def stopped(registry):
    live = LivePredictor(registry)
    live.stop()
    return live


def test_a_damaged_record_alone_keeps_a_pickle_closed(pair, trap):
    plant(pair.path(1), trap, card=True, record=True)
    shutil.rmtree(pair.folder / "aliases")
    (pair.path(1) / RUN_FILE).write_text("{")
    assert verify(pair, 1)
    with pytest.raises(ArtifactError):
        open_version(pair, 1, sha256((pair.path(1) / CARD_FILE).read_bytes()))
    assert not Path(trap.marker).exists()


def test_a_start_without_promotions_opens_no_pickle_unless_pickles_are_allowed(registry, trap):
    plant(registry.path(1), trap, card=True, record=True)
    shutil.rmtree(registry.folder / "aliases")
    finish_first_promotion(registry)
    assert not (registry.folder / "aliases").exists()
    assert not Path(trap.marker).exists()
    with pytest.raises(ArtifactError):
        finish_first_promotion(registry, pickles=True)
    assert Path(trap.marker).exists()  # so that the trap would have told above


def test_a_start_skips_a_pickle_and_finishes_the_first_promotion_of_a_forest(pair, trap):
    plant(pair.path(1), trap, card=True, record=True)
    (pair.path(2) / RUN_FILE).write_bytes(to_json(replace(read_run(pair.path(2)), promoted=True)))
    shutil.rmtree(pair.folder / "aliases")
    finish_first_promotion(pair)
    assert current(pair).version == 2
    assert not Path(trap.marker).exists()


EXCHANGE = """
import os, sys
genuine, planted = sys.argv[1:]
for _ in range(1_000_000):
    for folder in (planted, genuine):
        for name in ("card.json", "iris_model.pkl"):
            os.link(os.path.join(folder, name), sys.argv[1] + ".next")
            os.replace(sys.argv[1] + ".next", os.path.join(os.environ["VERSION"], name))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files that are open are exchanged here")
@pytest.mark.parametrize("times", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_no_planted_pickle_runs_while_another_process_exchanges_files(pair, trap, tmp_path, times):
    version = pair.path(1)
    (version / FOREST_FILE).unlink()
    genuine = replace(read_card(version), files={MODEL_FILE: read_card(version).files[MODEL_FILE]})
    exchange(version, genuine)
    shutil.rmtree(pair.folder / "aliases")
    planted = shutil.copytree(version, tmp_path / "planted")
    genuine = shutil.copytree(version, tmp_path / "genuine")
    plant(planted, trap, card=True)
    command = [sys.executable, "-c", EXCHANGE, genuine, planted]
    exchanging = subprocess.Popen(command, env=os.environ | {"VERSION": str(version)})
    promoted = 0
    try:
        for _ in range(times):
            with contextlib.suppress(ArtifactError):
                promote(pair, 1, "it looked fine")
                promoted += 1
            assert not Path(trap.marker).exists()
    finally:
        exchanging.kill()
        exchanging.wait()
    assert 0 < promoted < times  # it met both the one and the other


def test_verify_finds_a_missing_version_and_a_damaged_and_a_copied_event(pair):
    folder = pair.folder / "aliases"
    shutil.copytree(folder / "current", folder / "canary")
    shutil.rmtree(pair.folder / "1")
    (folder / "current" / "2.json").write_text("{")
    found = verify(pair)
    assert any("alias current: iris has no version 1" in issue for issue in found)
    assert any("2.json is no promotion" in issue for issue in found)
    assert any("is a promotion of current, not of canary" in issue for issue in found)
    assert [issue for issue in verify(pair, 2) if not issue.startswith("alias ")] == []


def test_verify_finds_another_notebook_and_another_number(pair):
    path = pair.path(2)
    record = json.loads((path / RUN_FILE).read_text())
    (path / RUN_FILE).write_text(json.dumps(record | {"notebook": "0" * 64}))
    assert any("no readable retrain.ipynb" in issue for issue in verify(pair, 2))
    (path / "retrain.ipynb").write_text("{}")
    assert any("is not the notebook" in issue for issue in verify(pair, 2))
    path.rename(pair.folder / "5")
    assert any("is the run record of version 2" in issue for issue in verify(pair, 5))


@pytest.mark.parametrize("place", ["1", "aliases", "aliases/current", ""])
def test_a_directory_that_is_a_link_is_refused(registry, tmp_path, place):
    path = registry.folder / place
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a symbolic link"):
        open_model(registry.path(current(registry).version))
    with pytest.raises(ArtifactError, match="is a symbolic link"):
        promote(registry, 1, "through a link")


@pytest.mark.parametrize("damage", [replace_by_link, replace_by_pipe], ids=lambda f: f.__name__)
def test_an_event_that_is_a_link_or_a_pipe_is_refused(registry, damage):
    damage(registry.folder / "aliases" / "current" / "1.json")
    with pytest.raises(ArtifactError, match=r"no readable 1\.json"):
        current(registry)


def test_the_models_directory_itself_may_be_a_link(registry, tmp_path):
    (tmp_path / "link").symlink_to(registry.folder.parent)
    linked = Registry(tmp_path / "link")
    promote(linked, 1, "through the link")
    assert len(history(registry)) == 2


def test_verify_finds_a_version_that_says_promoted_and_never_was(registry):
    shutil.copytree(registry.path(1), registry.folder / "2")
    record = replace(read_run(registry.path(1)), version=2)
    (registry.path(2) / RUN_FILE).write_bytes(to_json(record))
    (issue,) = verify(registry)
    assert issue.startswith("version 2: its run record says promoted, and no alias")
    assert verify(registry, 2) == [issue]
    assert verify(registry, 1) == []
    (registry.path(2) / RUN_FILE).write_bytes(to_json(replace(record, promoted=False)))
    assert verify(registry) == []
    (registry.path(2) / RUN_FILE).write_bytes(to_json(record))
    promote(registry, 2, "it is wanted", alias="canary")
    assert verify(registry) == []


def test_an_alias_whose_card_was_exchanged_does_not_resolve(pair):
    shutil.copy(pair.path(1) / CARD_FILE, pair.path(2) / CARD_FILE)
    with pytest.raises(ArtifactError, match="not the card that was promoted"):
        resolve(pair, "current")


# Who and why


def test_an_event_says_who_and_never_a_path(registry, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    event = promote(registry, 1, "two\nlines \x1b[31m", alias="canary")
    assert (event.who, event.alias, event.why) == ("ada", "canary", "two lines [31m")
    for name in ("/home/ada", "C:\\Users\\ada", "\n"):
        monkeypatch.setenv("LOGNAME", name)
        assert user_name() == "unknown"
    monkeypatch.setattr("getpass.getuser", lambda: {}["nobody"])
    assert promote(registry, 1, "again").who == "unknown"


# Rollback


def test_rollback_goes_back_like_undo(pair):
    for _ in range(2):
        train(pair.folder.parent, Parameters(n_estimators=1, promote="never"))
    promote(pair, 3, "third")
    assert rollback(pair).version == 2
    promote(pair, 4, "fourth")
    assert [rollback(pair).version for _ in range(2)] == [2, 1]
    with pytest.raises(NoModelError, match="nothing stood before"):
        rollback(pair)
    assert [event.rollback for event in history(pair)] == [0, 0, 0, 1, 0, 1, 1]
    assert effective_history(history(pair)) == [1]


def test_rollback_skips_a_promotion_of_the_same_version_again(pair):
    promote(pair, 2, "again")
    assert rollback(pair).version == 1


def test_rollback_to_a_damaged_version_is_refused(pair):
    flip(pair.path(1) / FOREST_FILE)
    with pytest.raises(ArtifactError, match=FOREST_FILE):
        rollback(pair)
    assert current(pair).version == 2


def test_a_rollback_is_refused_after_any_other_promotion_even_of_the_same_version(
    pair, monkeypatch
):
    before = len(history(pair))

    def interrupted(past):
        promote(pair, 2, "the same once more")
        return effective_history(past)

    monkeypatch.setattr(iris_serve.registry.verify, "effective_history", interrupted)
    with pytest.raises(
        ConflictError, match=r"promoted in the meantime: its last event is 3, not 2"
    ):
        rollback(pair)
    assert len(history(pair)) == before + 1
    assert current(pair).version == 2


def test_rollback_of_an_alias_leaves_the_others_alone(pair):
    promote(pair, 2, "try", alias="canary")
    promote(pair, 1, "try", alias="canary")
    rollback(pair, "canary", "no")
    assert {name: event.version for name, event in aliases(pair).items()} == {
        "canary": 2,
        "current": 2,
    }
    assert resolve(pair, "canary") == 2
    with pytest.raises(NoModelError, match='no alias "beta"'):
        rollback(pair, "beta")
