"""Documents in files of Extended JSON, as the real application's were recorded."""

import gzip
from pathlib import Path
from typing import Any

from bson import json_util
from bson.codec_options import DatetimeConversion

EXTENDED_JSON = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS
)


def read_documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a gzipped file, dates as `DatetimeMS`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json_util.loads(line, json_options=EXTENDED_JSON) for line in lines]
