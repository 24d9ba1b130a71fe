"""Build the package from settings.ini, the one place that says what it is made of."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(interpolation=None)
ini.read(here / "settings.ini", encoding="utf-8")
package = ini["package"]


def requirements(key: str) -> list[str]:
    """Return what is listed under `key`, one per line."""
    return [line for line in package.get(key, "").split("\n") if line.strip()]


url, branch = package["url"], package["branch"]
extras = {
    name: requirements(f"{name}_requirements")
    for name in ("lab", "notify", "s3", "secrets", "dask", "ray", "spark", "labels", "convert", "dev")
}

setup(
    name=package["name"],
    version=package["version"],
    description=package["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license=package["license"],
    keywords=package["keywords"],
    classifiers=requirements("classifiers"),
    url=url,
    project_urls={
        "Documentation": f"{url}/blob/{branch}/docs/workflow.md",
        "Changelog": f"{url}/blob/{branch}/CHANGELOG.md",
        "Issues": f"{url}/issues",
        "Security": f"{url}/security/policy",
        "Source": url,
    },
    python_requires=f">={package['min_python']}",
    packages=find_packages(include=["d2c_mlops", "d2c_mlops.*"]),
    package_data={
        "d2c_mlops": ["py.typed", "**/*.ipynb", "**/*.ini", "**/*.html", "**/*.j2", "**/*.mako", "**/labextensions/**"]
    },
    include_package_data=True,
    install_requires=requirements("requirements"),
    extras_require=extras,
    entry_points={
        "console_scripts": ["d2c = d2c_mlops.cli:main"],
        "d2c_mlops.sources": [
            "csv = d2c_mlops.data.sources.fetch:CsvSource",
            "parquet = d2c_mlops.data.sources.fetch:ParquetSource",
            "sql = d2c_mlops.data.sources.fetch:SqlSource",
            "sample = d2c_mlops.data.sources.fetch:SampleSource",
            "simulated = d2c_mlops.data.simulate.source:SimulatedSource",
            "zip = d2c_mlops.data.sources.archives:ZipSource",
        ],
        "d2c_mlops.sinks": [
            "file = d2c_mlops.serving.batch.sinks:FileSink",
            "ledger = d2c_mlops.serving.batch.ledger_sink:LedgerSink",
            "sql = d2c_mlops.serving.batch.sql_sink:SqlSink",
            "webhook = d2c_mlops.serving.batch.webhook_sink:WebhookSink",
        ],
        "d2c_mlops.layouts": [
            "bank-marketing = d2c_mlops.data.layouts.bank_marketing:BankMarketing",
            "canonical = d2c_mlops.data.layouts.discovery:Canonical",
            "complete-journey = d2c_mlops.data.layouts.complete_journey:CompleteJourney",
            "online-retail = d2c_mlops.data.layouts.online_retail:OnlineRetail",
            "shopify = d2c_mlops.data.layouts.shopify:Shopify",
        ],
    },
)
