"""JupyterLab server extension that returns the parameters of a notebook."""

from __future__ import annotations

import json
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import ensure_async, url_path_join
from tornado.web import HTTPError, authenticated

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.parameters.parameters import declared_parameters, default_text


class ParametersHandler(APIHandler):
    """GET d2c/parameters?path=NOTEBOOK: name, type and default of each parameter."""

    @authenticated
    async def get(self) -> None:
        path = str(self.get_query_argument("path"))
        model: dict[str, Any] = await ensure_async(self.contents_manager.get(path, content=True, type="notebook"))  # type: ignore[no-untyped-call]
        try:
            parameters = declared_parameters(model["content"], path)
        except UsageError as err:
            raise HTTPError(400, str(err)) from None
        listed = [{"name": p.name, "type": p.annotation, "value": default_text(p)} for p in parameters]
        self.finish(json.dumps({"parameters": listed}))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Add the handlers to a Jupyter server."""
    base = server.web_app.settings["base_url"]
    server.web_app.add_handlers(".*$", [(url_path_join(base, "d2c", "parameters"), ParametersHandler)])
