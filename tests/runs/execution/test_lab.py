"""JupyterLab on the project: jobs run through the ledger and offer the notebook's own parameters."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.cli.lab import EXTENSIONS
from d2c_mlops.runs.parameters.parameters import check_values, declared_parameters, default_text
from support.tagged_notebooks import write

PARAMETERS = """#tags:parameters
from datetime import date
from pathlib import Path
who: str = 'nobody'
days: int = 7
rate: float = -0.5
day: date = date(2026, 1, 31)
out = Path('reports/a')
ceiling: float = float('inf')
keys: list[str] = ['a', "it's"]
weights: dict[str, float] = {'a': 1.5}
name: str | None = None
flag = True
latest: date = newest_day()
blank: str = ''"""


def test_defaults_are_offered_as_texts_that_give_them_again(tmp_path: Path) -> None:
    write(tmp_path / "nb.ipynb", PARAMETERS)
    declared = declared_parameters(json.loads((tmp_path / "nb.ipynb").read_text()))
    offered = {parameter.name: default_text(parameter) for parameter in declared}
    assert offered == {
        "who": "nobody", "days": "7", "rate": "-0.5", "day": "2026-01-31", "out": "reports/a", "ceiling": "inf",
        "keys": '["a", "it\'s"]', "weights": '{"a": 1.5}', "name": "None", "flag": "True", "latest": "", "blank": "",
    }  # fmt: skip
    values = check_values(declared, {name: text for name, text in offered.items() if text})
    space: dict[str, Any] = {"newest_day": lambda: None}
    exec(PARAMETERS.partition("\n")[2], space)
    assert values == {name: space[name] for name in values} and len(values) == 10


def test_the_lab_is_started_with_scheduler_server_and_extension(project: Path) -> None:
    command = json.loads(CliRunner().invoke(main, ["lab", "--json"]).output)["command"]
    text = " ".join(command)
    for part in ("d2c_mlops.runs.lab.job_manager.JobScheduler", "d2c_mlops.runs.lab.job_manager.RunManager", "d2c_mlops.runs.lab.server_extension=True",
                 f"extra_labextensions_path={EXTENSIONS}"):  # fmt: skip
        assert part in text
    package = json.loads((EXTENSIONS / "d2c-lab" / "package.json").read_text())
    assert (EXTENSIONS / "d2c-lab" / package["jupyterlab"]["_build"]["load"]).is_file()


def test_make_lab_is_d2c_lab() -> None:
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    assert "\n\t$(BIN)/d2c lab" in makefile.partition("\nlab:")[2].partition("\n\n")[0]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"days": "a week"}, "is not of type int"),
        ({"whoo": "7"}, "did you mean 'who'"),
        ({"day": "31.1.2026"}, "of type date"),
    ],
)
@pytest.mark.slow
def test_a_job_whose_parameters_do_not_fit_is_refused_when_it_is_created(
    tmp_path: Path, given: dict[str, str], reason: str
) -> None:
    from jupyter_scheduler.environments import CondaEnvironmentManager
    from jupyter_scheduler.exceptions import SchedulerError
    from jupyter_scheduler.models import CreateJob, CreateJobDefinition
    from jupyter_scheduler.orm import create_tables

    from d2c_mlops.runs.lab.job_manager import JobScheduler

    write(tmp_path / "nb.ipynb", PARAMETERS)
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    create_tables(url)
    made = JobScheduler(root_dir=str(tmp_path), environments_manager=CondaEnvironmentManager(), db_url=url)
    common = {"input_uri": "nb.ipynb", "runtime_environment_name": "x", "name": "n", "parameters": given}
    for create, model in ((made.create_job, CreateJob), (made.create_job_definition, CreateJobDefinition)):
        with pytest.raises(SchedulerError, match=reason):
            create(model(**common))


def test_fields_left_blank_mean_the_notebooks_default(tmp_path: Path) -> None:
    pytest.importorskip("jupyter_scheduler")
    from d2c_mlops.runs.lab.job_manager import drop_blank_fields

    write(tmp_path / "nb.ipynb", PARAMETERS)
    declared = declared_parameters(json.loads((tmp_path / "nb.ipynb").read_text()))
    given = {"who": "", "days": "", "latest": "", "blank": "", "rate": "1"}
    assert drop_blank_fields(declared, given) == {
        "who": "",
        "rate": "1",
    }  # an empty text may be meant where the default is another
