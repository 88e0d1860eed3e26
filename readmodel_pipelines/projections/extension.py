"""Extensions: read models that an application adds from a module or file of its own.

An extension is loaded by its name or path, never pickled, and defines `READ_MODELS`, a tuple of projections. A
projection that would harm another one, or that no pass could be made with, is refused here, before anything is read.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from readmodel_pipelines.errors import UsageError, raised
from readmodel_pipelines.events.stream import EventType, Fold
from readmodel_pipelines.projections.names import ALL
from readmodel_pipelines.projections.projection import Projection

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ASSETS = ("events", "repair_queue")
_GUIDE = "readmodel_pipelines/docs/extending.md shows a whole one."


def load_extension(source: str) -> tuple[Projection, ...]:
    """The projections of a module, or of a file: a name with a slash or that ends in `.py`.

    Raises:
        UsageError: it is not there, does not load, or has no READ_MODELS.
    """
    is_file = source.endswith(".py") or "/" in source
    try:
        module = _load_file(source) if is_file else importlib.import_module(source)
    except UsageError:
        raise
    # A script that nobody may import ends the process: silently, if it were let.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and not is_file and f"{source}.".startswith(f"{error.name}."):
            raise UsageError(
                f"READMODEL_PROJECTIONS names the module {source}, and there is none.",
                hint="Install it or put its folder on PYTHONPATH, or name its file instead: /path/to/it.py.",
            ) from None
        raise UsageError(
            f"READMODEL_PROJECTIONS names {source}, which does not load: {raised(error)}.",
            hint="Mend it, or take it out of READMODEL_PROJECTIONS.",
        ) from error
    found = getattr(module, "READ_MODELS", None)
    if not isinstance(found, tuple | list) or not found or not all(isinstance(item, Projection) for item in found):
        raise UsageError(
            f"READMODEL_PROJECTIONS names {source}, which adds no read model: it has no tuple READ_MODELS of "
            "projections.",
            hint=f"Define READ_MODELS = (Projection(…),) in it. {_GUIDE}",
        )
    return tuple(found)


def check_extension(
    source: str, projection: Projection, others: Sequence[Projection], collections: Sequence[str]
) -> None:
    """Refuse a projection that is not whole, or that clashes with `others` or with collections that are spoken for.

    Raises:
        UsageError: it says what is wrong, and all of it.
    """
    wrong = [*_clashes(projection, others, collections), *_flaws(projection), *_flaws_of_fold(projection.fold, others)]
    if wrong:
        raise UsageError(
            f"READMODEL_PROJECTIONS names {source}, whose read model {projection.name!r} cannot be used: "
            f"{'; '.join(wrong)}.",
            hint=f"Mend it there. {_GUIDE}",
        )


def _clashes(projection: Projection, others: Sequence[Projection], collections: Sequence[str]) -> Iterator[str]:
    if projection.name in (ALL, *(item.name for item in others)):
        yield f"the name {projection.name} is taken"
    if projection.read_model in (*_ASSETS, *collections, *(item.read_model for item in others)):
        yield f"{projection.read_model} is taken: events, repair queue or another read model lie there"


def _flaws(projection: Projection) -> Iterator[str]:
    for what, text in (("name", projection.name), ("read_model", projection.read_model)):
        if not isinstance(text, str) or not _NAME.fullmatch(text):
            yield f"{what} is {text!r}, and takes a to z, then also 0 to 9 and _"
        elif text.startswith(("readmodel_", "system_")) or "__" in text:
            yield f"{what} is {text!r}: readmodel_…, system_… and …__… are kept for bookkeeping"
    owned = projection.owned
    if isinstance(owned, str) or not owned or len(set(owned)) < len(owned):
        yield "owned names no field, or one twice"
    bad = [name for name in owned if not name or name == "_id" or name.startswith("$") or "." in name]
    if bad:
        yield f"owned names {', '.join(map(repr, bad))}; it takes fields of the document's top level, without _id"
    missing = [name for name in (projection.key, *projection.unique) if name not in owned]
    if missing:
        yield f"owned lacks {', '.join(missing)}, which key or unique name"
    if type(projection.schema_version) is not int or projection.schema_version < 1:
        yield f"schema_version is {projection.schema_version!r}, and counts from 1"
    if not callable(projection.document):
        yield "document is no function"
    if projection.claims is not None:
        event_type, name = projection.claims
        if event_type not in projection.fold.events or name not in projection.fold.events[event_type].fields:
            yield f"claims names {name} of {event_type}, which the fold's events do not"
    strangers = sorted(set(projection.decided_by) - set(projection.fold.events))
    if strangers:
        yield f"decided_by names {', '.join(map(repr, strangers))}, which the fold's events do not"


def _flaws_of_fold(fold: Fold[Any], others: Sequence[Projection]) -> Iterator[str]:
    if isinstance(fold.stored_as, str) or not fold.stored_as:
        yield "the fold's stored_as names no spelling"
    odd = sorted(name for name, item in fold.events.items() if not isinstance(item, EventType))
    if odd:
        yield f"the fold's events have no EventType for {', '.join(odd)}"
    try:
        state = fold.start()
        state.version = int(state.created)
    except Exception as error:  # noqa: BLE001 - whatever somebody else's code raises
        yield f"the fold's start makes no state with created and version: {raised(error)}"
    for other in (item.fold for item in others):
        if fold.aggregate_type == other.aggregate_type:
            # One pass feeds them all, so they have to agree on which events there are, and on which of them count.
            if (set(fold.stored_as), fold.prefix) != (set(other.stored_as), other.prefix):
                yield (
                    f"the fold of {fold.aggregate_type} streams has another stored_as or prefix than the fold that is "
                    f"there: {', '.join(other.stored_as)} and {other.prefix}"
                )
            odd = sorted(fold.events.keys() ^ other.events.keys())
            if odd:
                yield f"the fold of {fold.aggregate_type} streams must take every event type there is: {', '.join(odd)}"
            return
        if set(fold.stored_as) & set(other.stored_as):
            yield f"the fold reads the events of {other.aggregate_type} streams: its aggregate_type must be that, too"
            return


def _load_file(source: str) -> ModuleType:
    path = Path(source).expanduser().resolve()
    name = f"readmodel_extension_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise UsageError(
            f"READMODEL_PROJECTIONS names the file {source}, and there is no file {path}.",
            hint="Give the whole path: relative ones begin where a process was started.",
        )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(
            f"READMODEL_PROJECTIONS names the file {source}, which is no Python file.", hint="Its name ends in .py."
        )
    module = importlib.util.module_from_spec(spec)
    # Before it is executed: a dataclass in it looks itself up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
