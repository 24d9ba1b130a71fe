"""Bare FastAPI with orjson and LightGBM: no validation, no log, no reasons."""

import os

import lightgbm
import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

FEATURES = [f"feature_{i:02d}" for i in range(30)]
booster = lightgbm.Booster(model_file=os.environ["MODEL_FILE"])
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    records = orjson.loads(await request.body())["records"]
    scores = booster.predict(np.array([[r[n] for n in FEATURES] for r in records]), num_threads=1)
    return Response(orjson.dumps({"predictions": scores.tolist()}), media_type="application/json")
