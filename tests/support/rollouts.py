"""A rollout between two versions of the leads model, and the service that runs both."""

import json
from collections.abc import Callable
from pathlib import Path

from d2c_mlops.serving.app.app import App, ServedModel, ServiceContext, create_app
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.rollout.rollout_watcher import RolloutWatcher
from d2c_mlops.serving.rollout.state_file import Rollout, state_paths, write_state
from d2c_mlops.settings import RolloutSettings
from support.lead_service import Lead
from support.local_client import LocalClient

LOOSE = RolloutSettings(min_answers=10_000, slow_ms=1e9)
KEYS = [f"C-{i:06}" for i in range(100_000)]


def going(share: float = 0.1, mode: str = "share", **more: object) -> Rollout:
    return Rollout("leads", 1, 2, mode, share, "2", **{"stage": "s1", "guards": LOOSE, **more})


class Keen(Lead):
    """Says a hundred more; fails on leads with 13 visits, refuses the same as the other."""

    def predict_records(self, records):
        if any(r["visits"] == 13 for r in records):
            raise ZeroDivisionError("thirteen")
        return [{**row, "score": row["score"] + 100} for row in super().predict_records(records)]


class Service:
    """Two versions behind the application, as in a worker."""

    def __init__(self, folder: Path, challenger: Lead | None = None) -> None:
        self.folder = folder
        sides = (Lead(), challenger or Keen())
        self.versions = {n: ServedModel(m, "leads", n, {}, {}, secret=b"s") for n, m in enumerate(sides, 1)}
        self.loaded = [self.versions[1]]
        self.keeping = ServiceContext(logbook=Logbook(folder / "log", segment=2**18))
        self.app: App = create_app(lambda: self.loaded[0], self.keeping)
        self.client = LocalClient(self.app, raise_server_exceptions=False)
        self.watcher = self.watch()

    def watch(self, install: Callable[[ServedModel], None] | None = None) -> RolloutWatcher:
        file, folder = state_paths("", str(self.folder), "leads")
        made = install or (lambda served: self.loaded.__setitem__(0, served))
        return RolloutWatcher(self.versions, 1, made, self.app.metrics, file, folder, self.keeping.logbook)

    def says(self, rollout: Rollout) -> None:
        assert self.watcher.file is not None
        write_state(self.watcher.file, rollout)
        self.watcher.check()

    def ask(self, *records: dict, path: str = "/predict", **more: object):
        return self.client.post(path, json={"records": list(records)}, **more)

    def logged(self) -> list[dict]:
        self.watcher.close()
        self.keeping.logbook.close()
        files = sorted((self.folder / "log").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def leads(count: int, visits: int = 3) -> list[dict]:
    return [{"lead_id": key, "visits": visits} for key in KEYS[:count]]
