"""What a rebuild keeps in collections of its own while it goes on, and leaves to nobody when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.database import Database

from readmodel_pipelines.mongo.rebuilds import State
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.mongo.shadow import copy_name, drop, shadow_name


def drop_leftovers(database: Database[Document], record: Mapping[str, Any]) -> None:
    """Drop its shadows, and the keys that it put off or noticed."""
    prefix = f"readmodel_rebuild_{record['_id']}_"
    names = [shadow_name] if record["state"] != State.ABORTED else [shadow_name, copy_name]
    drop(database, [name(live, record["_id"]) for live in record["read_models"] for name in names])
    drop(database, database.list_collection_names(filter={"name": {"$regex": f"^{prefix}"}}))
