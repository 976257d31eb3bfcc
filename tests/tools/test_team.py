"""A team's server as docs/cluster.md sets it up: real PostgreSQL, MLflow with passwords, two users at once."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from detoxlens.common.artifacts import read_json
from detoxlens.params.load import load_params
from detoxlens.pipeline.publish import GLANCE, comparable_key
from detoxlens.tracking import CHAMPION, flat_metrics, read_curves, resolve_store, stored_versions
from detoxlens.tracking.store import open_client
from tests.root import ROOT
from tests.sweep.postgres import PASSWORD as DATABASE_PASSWORD
from tests.sweep.postgres import postgres
from tests.tools.project import clone, run
from tests.tracking.stores import NOISE, documented_line

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(NOISE)]
MODEL = "tiny-neox"
PASSWORDS = {"admin": "s3cret-of-the-admin", "ada": "s3cret-of-ada-herself", "bob": "s3cret-of-bob-himself"}
WRONG = "s3cret-that-is-wrong"
SERVER_KEY = "s3cret-of-the-server"
SECRETS = [*PASSWORDS.values(), WRONG, SERVER_KEY, DATABASE_PASSWORD]


def documented_blocks() -> list[str]:
    """The commands of the page's section on the team's server, in their order, without the installation."""
    page = (ROOT / "docs/cluster.md").read_text("utf-8")
    section = page.split("## One MLflow server for a team\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", section, re.MULTILINE)
    return [re.sub(r"^pip install .*\n", "", textwrap.dedent(block), flags=re.MULTILINE) for block in blocks]


class Team:
    """The documented commands with this test's names in place of the placeholders."""

    def __init__(self, folder: Path, database: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.address = folder, f"http://127.0.0.1:{self.port}"
        self.database = database.replace("postgresql://", "postgresql+psycopg://")
        self.server_block, self.user_block, self.member_block = documented_blocks()
        self.server: subprocess.Popen | None = None
        self.told: list[str] = []
        self.projects: set[Path] = set()

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def script(self, name: str, block: str, **words: str) -> list[str]:
        """The command that runs a documented block: from a file, since arguments are seen by `ps`."""
        words |= {
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE": self.database,
            "http://127.0.0.1:5000": self.address,
            "--port 5000": f"--port {self.port}",
            "=ADMIN_PASSWORD": f"={PASSWORDS['admin']}",
            "_KEY=SECRET": f"_KEY={SERVER_KEY}",
            "FOLDER": str(self.folder / "artifacts"),
        }
        for word, value in words.items():
            block = block.replace(word, value)
        (self.folder / name).write_text(block)
        return ["bash", str(self.folder / name)]

    def start(self) -> None:
        with self.log.open("a") as log:
            self.server = subprocess.Popen(
                self.script("server.sh", self.server_block),
                cwd=self.folder,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(400):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.address}/health", timeout=2).close()
                return
            assert self.server.poll() is None, self.log.read_text()
            time.sleep(0.3)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self.server.pid, signal.SIGTERM)
        self.server.wait()

    def add_user(self, name: str) -> None:
        subprocess.run(
            self.script("user.sh", self.user_block, ada=name),
            env=environment(),
            cwd=self.folder,
            check=True,
            input=PASSWORDS[name] + "\n",
            text=True,
            capture_output=True,
            start_new_session=True,
        )

    def as_member(self, project: Path, user: str, command: str, *, password: str | None = None) -> str:
        """What a member's command prints, with the documented variables set."""
        words = {"ADAS_PASSWORD": password or PASSWORDS[user], "USERNAME=ada": f"USERNAME={user}", "dvc repro": command}
        self.told.append(run(shlex.join(self.script(f"{user}.sh", self.member_block, **words)), cwd=project))
        self.projects.add(project)
        return self.told[-1]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"PATH": path}


@pytest.fixture(scope="module")
def arguments():
    """Every command line that `ps` shows while the tests of this file run."""
    seen, over = set(), threading.Event()

    def look():
        while not over.wait(0.2):
            seen.update(subprocess.check_output(["ps", "axww", "-o", "args"], text=True).splitlines())

    watcher = threading.Thread(target=look)
    watcher.start()
    yield seen
    over.set()
    watcher.join()


@pytest.fixture(scope="module")
def team(tmp_path_factory, arguments):
    pytest.importorskip("flask_wtf", reason="pip install -e '.[server,postgres]' -c constraints.txt")
    pytest.importorskip("psycopg", reason="pip install -e '.[server,postgres]' -c constraints.txt")
    with postgres() as database:
        team = Team(tmp_path_factory.mktemp("team"), database.url)
        team.start()
        try:
            for user in ("ada", "bob"):
                team.add_user(user)
            yield team
        finally:
            team.stop()


@pytest.fixture
def store(team, monkeypatch):
    """The server as this process sees it, as Ada."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS["ada"])
    return resolve_store(team.folder, {"MLFLOW_TRACKING_URI": team.address})


def runs_of(store, kind):
    client, experiment_id = open_client(store)
    return client.search_runs([experiment_id], f"tags.`detoxlens.kind` = '{kind}'", max_results=1000)


@pytest.fixture
def checkouts(origin, tmp_path):
    """The same commit and results on the machines of two users."""
    return {user: clone(origin, tmp_path / user) for user in ("ada", "bob")}


def at_once(team, checkouts, command):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda user: team.as_member(checkouts[user], user, command), checkouts))


def change(project, section, **values):
    yaml = YAML()
    params = yaml.load((project / "params.yaml").read_text("utf-8"))
    params[section] |= values
    with (project / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def keys_of(project):
    """(model, variant) of a checkout -> the tag of its run."""
    params = load_params(project / "params.yaml")
    return {variant: comparable_key(project, params, MODEL, variant) for variant in params.run.variants}


def waiting(project):
    return list((project / ".detoxlens/pending-runs").glob("*/*.json"))


def test_two_users_who_log_the_same_results_at_once_make_one_run_of_each(team, store, checkouts):
    at_once(team, checkouts, "detoxlens log")
    mine = set(keys_of(checkouts["ada"]).values())
    runs = [r for r in runs_of(store, "variant") if r.data.tags["detoxlens.key"] in mine]
    assert sorted(r.info.run_name for r in runs) == [f"{MODEL}/ft", f"{MODEL}/it"]
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert len({(v.variant, v.version) for v in stored_versions(store)}) == len(stored_versions(store)) == 1
    for found in runs:
        check_complete(store, found, checkouts["bob"])


def check_complete(store, found, project):
    """A run has the metrics, curves, files and data of the checkout's report, each once."""
    client, _ = open_client(store)
    variant = found.data.tags["detoxlens.variant"]
    metrics = flat_metrics(read_json(project / "reports/metrics.json")[MODEL][variant])
    assert metrics == {name: found.data.metrics[name] for name in metrics} and len(metrics) > 40
    reports = project / "reports"
    curves = read_curves(
        [reports / "entropy_curves.csv", reports / "training_curves.csv"], model=MODEL, variant=variant
    )
    for curve in curves:
        history = client.get_metric_history(found.info.run_id, curve.name)
        assert sorted((m.step, m.value) for m in history) == sorted(curve.points)
    assert curves and len(found.inputs.dataset_inputs) == 2
    assert {"adapter", "completions.json", "figures"} <= {a.path for a in client.list_artifacts(found.info.run_id)}
    adapter = project / "adapters" / MODEL / variant
    for file in adapter.iterdir():
        assert (
            Path(client.download_artifacts(found.info.run_id, f"adapter/{file.name}")).read_bytes() == file.read_bytes()
        )


def test_two_users_whose_pipelines_run_at_once_find_everything_on_the_server(team, store, checkouts):
    change(checkouts["ada"], "sft", learning_rate=0.001)
    change(checkouts["bob"], "attribution", max_sequences=5)
    before = {r.info.run_id for r in runs_of(store, "stage")}
    told = at_once(team, checkouts, "dvc repro")
    executed = Counter(
        re.sub(r"@", "/", name).replace("-ft", "/ft").replace("-it", "/it")
        for name in re.findall(r"Running stage '(.+)'", "\n".join(told))
    )
    stages = [r for r in runs_of(store, "stage") if r.info.run_id not in before]
    assert Counter(r.info.run_name for r in stages) == executed and executed["report"] == 2
    assert {r.info.status for r in stages} == {"FINISHED"}

    counted = Counter(r.data.tags["detoxlens.key"] for r in runs_of(store, "variant"))
    assert {*counted.values()} == {1}
    by_key = {r.data.tags["detoxlens.key"]: r for r in runs_of(store, "variant")}
    for project in checkouts.values():
        for key in keys_of(project).values():
            check_complete(store, by_key[key], project)
    ada, bob = (by_key[keys_of(project)["ft"]] for project in checkouts.values())
    assert ada.info.experiment_id == bob.info.experiment_id
    assert len(glance(ada)) == 5 and glance(ada).keys() == glance(bob).keys()
    assert {n for n in ada.data.params if ada.data.params[n] != bob.data.params[n]} == {
        "sft.learning_rate",
        "attribution.max_sequences",
    }
    parents = {r.data.tags.get("mlflow.parentRunId") for r in stages if r.data.tags.get("detoxlens.variant") == "ft"}
    assert parents == {ada.info.run_id, bob.info.run_id}

    (champion,) = [v for v in stored_versions(store) if CHAMPION in v.aliases]
    assert champion.run_is_live and champion.variant == "ft"
    (checkouts["bob"] / "load.py").write_text(
        "import mlflow\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
        f"base = AutoModelForCausalLM.from_pretrained('models/{MODEL}/base')\n"
        f"print(type({documented_line()}).__name__)\n"
    )
    assert "PeftModelForCausalLM" in team.as_member(checkouts["bob"], "bob", "python load.py")


def glance(found):
    return {name: value for name, value in found.data.metrics.items() if name.startswith(GLANCE)}


def test_a_wrong_password_and_a_silent_server_are_told_and_lose_nothing(team, store, checkouts):
    project = checkouts["bob"]
    change(project, "attribution", max_sequences=3)
    told = team.as_member(project, "bob", "dvc repro", password=WRONG)
    assert told.count("Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.") == 1 and "Traceback" not in told
    executed = told.count("Running stage")
    assert len(waiting(project)) == executed >= 1
    assert "Set MLFLOW_TRACKING" in team.as_member(project, "bob", "! detoxlens log", password=WRONG)
    team.stop()
    try:
        told = team.as_member(project, "bob", "detoxlens report && ! detoxlens log")
        assert told.count("Start the server, or unset MLFLOW_TRACKING_URI") == 2 and "Traceback" not in told
        assert len(waiting(project)) == executed + 1
    finally:
        team.start()
    before = len(runs_of(store, "stage"))
    team.as_member(project, "bob", "detoxlens log")
    assert waiting(project) == [] and len(runs_of(store, "stage")) == before + executed + 1
    for key in keys_of(project).values():
        (found,) = [r for r in runs_of(store, "variant") if r.data.tags["detoxlens.key"] == key]
        check_complete(store, found, project)


def test_no_password_is_seen_anywhere(team, store, arguments):
    """After all that: in no output, no log, no run, no file that the commands left, no argument."""
    everything = "\n".join(str(r.to_dictionary()) for kind in ("variant", "stage") for r in runs_of(store, kind))
    left = [p for project in team.projects for p in (project / ".detoxlens").rglob("*") if p.is_file()]
    files = "\n".join(p.read_text("utf-8", errors="replace") for p in [team.log, *left])
    assert any("mlflow server --app-name basic-auth" in line for line in arguments) and team.told
    for shown in (everything, files, *team.told, *arguments):
        assert [secret for secret in SECRETS if secret in shown] == []
