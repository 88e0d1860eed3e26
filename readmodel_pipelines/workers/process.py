"""The program of a worker process: `python -m readmodel_pipelines.workers.process FD`."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from readmodel_pipelines.workers.pool import serve

if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
