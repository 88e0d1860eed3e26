"""BSON values as Extended JSON, for people and machines."""

from __future__ import annotations

import json
from typing import Any

from bson import json_util
from bson.json_util import RELAXED_JSON_OPTIONS, JSONOptions

from readmodel_pipelines.reconcile.compare import ABSENT


def json_value(value: Any, options: JSONOptions = RELAXED_JSON_OPTIONS) -> Any:
    """A BSON value as plain JSON types, in Extended JSON."""
    if value is ABSENT:
        return {"$absent": True}
    return json.loads(json_util.dumps(value, json_options=options))
