"""BSON values as Extended JSON: as plain JSON types for programs, and as texts."""

import json
from collections.abc import Mapping
from typing import Any

from bson import json_util
from bson.json_util import RELAXED_JSON_OPTIONS, JSONOptions

from readmodel_pipelines.events.exact import Odd, Repeated
from readmodel_pipelines.reconcile.compare import ABSENT


def json_value(value: Any, options: JSONOptions = RELAXED_JSON_OPTIONS) -> Any:
    """A BSON value as plain JSON types, in Extended JSON."""
    if value is ABSENT:
        return {"$absent": True}
    return json.loads(dumped(value, options))


def dumped(value: Any, options: JSONOptions) -> str:
    """A BSON value as the text of its Extended JSON."""
    return json_util.dumps(_known(value), json_options=options)


def _known(value: Any) -> Any:
    """A value whose type the driver supports."""
    if isinstance(value, Odd):
        return _known(value.extended)
    if isinstance(value, Repeated):
        return {"$repeated": _known([*value.values])}
    if isinstance(value, Mapping):
        return {name: _known(item) for name, item in value.items()}
    return [_known(item) for item in value] if isinstance(value, list) else value


def json_text(value: Any) -> str:
    """A stored value of any type as text, for people; an ObjectId and a date as their content."""
    shown = json_value(value)
    if isinstance(shown, dict) and len(shown) == 1 and isinstance(inner := next(iter(shown.values())), str):
        shown = inner
    return shown if isinstance(shown, str) else json.dumps(shown)
