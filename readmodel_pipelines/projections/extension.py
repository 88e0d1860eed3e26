"""Extensions: read models that an application adds from a module or file of its own.

An extension is loaded by its name or path, never pickled, and defines `READ_MODELS`, a tuple of projections. A
projection that would harm another one, or that no pass could be made with, is refused here, before anything is read.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from readmodel_pipelines.errors import FAULTS, UsageError, raised
from readmodel_pipelines.events.ids import is_utf8
from readmodel_pipelines.events.stream import EventType, Fold
from readmodel_pipelines.projections.names import ALL
from readmodel_pipelines.projections.projection import Projection

_NAME = re.compile(r"[a-z][a-z0-9_]*")
# MongoDB's namespaces have a bound, and shadows and copies have longer names.
_LONGEST_NAME = 60
# A field of a document, or one of those below it.
_READ = re.compile(r"[^.$\0][^.\0]*(\.[^.$\0][^.\0]*)*")
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
        found = getattr(module, "READ_MODELS", None)
    except UsageError:
        raise
    # A script that nobody may import ends the process: silently, if it were let.
    except FAULTS as error:
        if isinstance(error, ModuleNotFoundError) and not is_file and f"{source}.".startswith(f"{error.name}."):
            raise UsageError(
                f"READMODEL_PROJECTIONS names the module {source}, and there is none.",
                hint="Install it or put its folder on PYTHONPATH, or name its file instead: /path/to/it.py.",
            ) from None
        raise UsageError(
            f"READMODEL_PROJECTIONS names {source}, which does not load: {raised(error)}.",
            hint="Mend it, or take it out of READMODEL_PROJECTIONS.",
        ) from error
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
    try:
        wrong = [*_of_another_type(projection)] or [
            *_clashes(projection, others, collections),
            *_flaws(projection),
            *_flaws_of_fold(projection.fold, others),
        ]
    except FAULTS as error:
        wrong = [f"it cannot be looked at: {raised(error)}"]
    if wrong:
        raise UsageError(
            f"READMODEL_PROJECTIONS names {source}, whose read model {projection.name!r} cannot be used: "
            f"{'; '.join(wrong)}.",
            hint=f"Mend it there. {_GUIDE}",
        )


def _of_another_type(projection: Projection) -> Iterator[str]:
    """What keeps anybody from looking further."""
    fold = projection.fold
    if not isinstance(fold, Fold) or not isinstance(fold.events, Mapping):
        yield "fold is no Fold with a mapping of events"
        return
    of_projection, of_fold = ("name", "read_model", "key", "description"), ("aggregate_type", "prefix")
    texts = {name: getattr(item, name) for item, own in ((projection, of_projection), (fold, of_fold)) for name in own}
    yield from (f"{what} is {text!r}, and no text" for what, text in texts.items() if not _is_text(text))
    read = {f"fields of {name}": item.fields for name, item in fold.events.items() if isinstance(item, EventType)}
    read["envelope"] = fold.envelope
    several = {"owned": projection.owned, "unique": projection.unique, "stored_as": fold.stored_as, **read}
    for what, names in several.items():
        if isinstance(names, str) or not isinstance(names, Collection) or not all(map(_is_text, names)):
            yield f"{what} is {names!r}, and no tuple of texts"
        elif what in read and not all(map(_READ.fullmatch, names)):
            yield f"{what} names what no field is called: {', '.join(map(repr, names))}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_utf8(value)


def _clashes(projection: Projection, others: Sequence[Projection], collections: Sequence[str]) -> Iterator[str]:
    if projection.name in (ALL, *(item.name for item in others)):
        yield f"the name {projection.name} is taken"
    if projection.read_model in (*_ASSETS, *collections, *(item.read_model for item in others)):
        yield f"{projection.read_model} is taken: events, repair queue or another read model lie there"


def _flaws(projection: Projection) -> Iterator[str]:
    for what, text in (("name", projection.name), ("read_model", projection.read_model)):
        if not _NAME.fullmatch(text) or len(text) > _LONGEST_NAME:
            yield f"{what} is {text!r}, and takes a to z, then also 0 to 9 and _, at most {_LONGEST_NAME} of them"
        elif text.startswith(("readmodel_", "system_")) or "__" in text:
            yield f"{what} is {text!r}: readmodel_…, system_… and …__… are kept for bookkeeping"
    owned = projection.owned
    if not owned or len(set(owned)) < len(owned):
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
    if projection.earlier is not None and not callable(projection.earlier):
        yield "earlier is no function"
    if projection.claims is not None:
        event_type, name = projection.claims
        if event_type not in projection.fold.events or name not in projection.fold.events[event_type].fields:
            yield f"claims names {name} of {event_type}, which the fold's events do not"
    strangers = sorted(set(projection.decided_by) - set(projection.fold.events))
    if strangers:
        yield f"decided_by names {', '.join(map(repr, strangers))}, which the fold's events do not"


def _flaws_of_fold(fold: Fold[Any], others: Sequence[Projection]) -> Iterator[str]:
    if not fold.stored_as:
        yield "the fold's stored_as names no spelling"
    odd = sorted(
        str(name) for name, item in fold.events.items() if not isinstance(item, EventType) or not callable(item.apply)
    )
    if odd:
        yield f"the fold's events have no EventType for {', '.join(odd)}"
    try:
        state = fold.start()
        state.version = int(state.created)
    except FAULTS as error:
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
