"""Makes a MongoDB that was started with --replSet a replica set of one member, once; waits until it takes writes."""

import os
import time
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure
from pymongo.uri_parser import parse_uri

NOT_YET_INITIALIZED = 94

wanted = parse_uri(os.environ["READMODEL_MONGODB_URI"])
host, port = wanted["nodelist"][0]
deadline = time.monotonic() + 120
with MongoClient[Any](host, port, directConnection=True, serverSelectionTimeoutMS=60_000) as client:
    while True:
        try:
            if client.admin.command("hello")["isWritablePrimary"]:
                break
            client.admin.command("replSetGetStatus")
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            members = [{"_id": 0, "host": f"{host}:{port}"}]
            client.admin.command("replSetInitiate", {"_id": wanted["options"]["replicaSet"], "members": members})
        except ConnectionFailure:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
