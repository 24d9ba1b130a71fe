"""A converted module must import clean: without output, files or our environment; libraries keep settings in a home of its own."""

import pytest

from d2c_mlops.convert.write.project import check_import, find_or_create_project
from d2c_mlops.errors import DataRefused


def imported(root, source):
    project = find_or_create_project(root, "shop")
    (project.package / "models").mkdir(parents=True, exist_ok=True)
    (project.package / "models" / "__init__.py").touch()
    (project.package / "models" / "demand.py").write_text(source)
    check_import(project, "shop.models.demand")


def test_a_library_may_keep_its_settings_in_the_home_of_the_process(tmp_path):
    imported(
        tmp_path,
        "from pathlib import Path\nhome = Path.home() / '.lib'\nhome.mkdir()\n(home / 'a.json').write_text('{}')\n",
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("print('loaded')", "printed"),
        pytest.param("open('left.txt', 'w').close()", "left.txt", marks=pytest.mark.slow),
        pytest.param("import nowhere", "nowhere", marks=pytest.mark.slow),
    ],
)
def test_a_module_with_side_effects_is_refused(tmp_path, source, said):
    with pytest.raises(DataRefused) as refused:
        imported(tmp_path, source)
    assert said in str(refused.value)


def test_nothing_of_our_environment_reaches_the_module(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "hush")
    imported(tmp_path, "import os\nassert 'SHOP_PASSWORD' not in os.environ\n")
