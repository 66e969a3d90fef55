"""What the appliance serves, as OpenAPI: the control API's own schema, the model routes by hand."""

import json
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI

from appliance.control import VERBS, Control

Json = dict[str, Any]
MODEL_ROUTES = Path(__file__).with_name("modelroutes.json")
NEVER_ENDS = "/appliance/v1/events"


def model_routes() -> Json:
    """Return the schema of the routes that pass to the engine."""
    schema: Json = json.loads(MODEL_ROUTES.read_text())
    return schema


def control_routes() -> Json:
    """Return the control API's schema: what FastAPI makes of it, and our errors.

    FastAPI would answer a bad parameter with 422 and a shape of its own; ours is a 400.
    """
    nothing = cast(Any, None)  # the routes alone are looked at
    app = FastAPI(title="Unglitched: the control API", version="1")
    app.include_router(Control(nothing, nothing, nothing, nothing, nothing).router())
    schema = app.openapi()
    paths = {path: at for path, at in schema["paths"].items() if path != NEVER_ENDS}
    ours = model_routes()["components"]
    components = {"responses": {"Error": ours["responses"]["Error"]}}
    components["schemas"] = {"Error": ours["schemas"]["Error"]}
    for operation in (operation for at in paths.values() for operation in at.values()):
        operation["responses"].pop("422", None)
        operation["responses"]["default"] = {"$ref": "#/components/responses/Error"}
    return schema | {"paths": paths, "components": components}


VERB_PATHS = [f"/appliance/v1/{verb.value}" for verb in VERBS]
