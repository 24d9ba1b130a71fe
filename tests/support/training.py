"""Registers versions of the toy shop's model."""

from datetime import UTC, date, datetime

from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.versions import Version, new_model, register
from d2c_mlops.settings import Settings

SHOP = shop(seed=1), date(2023, 12, 31)  # the example of the model


def train(settings: Settings, evaluation: Evaluation | None = None, **params: float) -> Version:
    """Register a fitted model on the simulated shop, which is a dataset of the project."""
    model = new_model("mean_units", settings, params)
    tables, as_of = SHOP
    manifest, _ = write_dataset(
        settings.store, "shop", dict(tables), source="simulated", layout="canonical", created_at=datetime.now(UTC)
    )
    found = evaluation or model.evaluate(tables, as_of)
    inputs = [{"name": "shop", "digest": manifest.digest}]
    return register("mean_units", model.fit(tables, as_of), found, settings=settings, as_of=as_of, inputs=inputs)
