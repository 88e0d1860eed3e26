"""BSON values as Extended JSON: of plain JSON types for machines, and as texts."""

import json
from typing import Any

from bson import json_util
from bson.json_util import RELAXED_JSON_OPTIONS, JSONOptions

from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines.reconcile.shortened import Shortened


def json_value(value: Any, options: JSONOptions = RELAXED_JSON_OPTIONS) -> Any:
    """A BSON value as plain JSON types, in Extended JSON."""
    if value is ABSENT:
        return {"$absent": True}
    if isinstance(value, Shortened):
        return value.as_json()
    return json.loads(json_util.dumps(value, json_options=options))


def json_text(value: Any) -> str:
    """A stored value of whatever type as text, for people; an ObjectId and a date as what they hold."""
    shown = json_value(value)
    if isinstance(shown, dict) and len(shown) == 1 and isinstance(inner := next(iter(shown.values())), str):
        shown = inner
    return shown if isinstance(shown, str) else json.dumps(shown)
