"""Extensions: read models that an application adds from a module or file of its own.

An extension is loaded by its name or path, never pickled, and defines `READ_MODELS`, a tuple of projections. A
projection that would conflict with another one, or that no pass could use, is refused here before anything is read.
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
# MongoDB limits the length of namespaces, and shadows and copies have longer names.
_LONGEST_NAME = 60
# A field of a document, or a nested one.
_READ = re.compile(r"[^.$\0][^.\0]*(\.[^.$\0][^.\0]*)*")
_ASSETS = ("events", "repair_queue")
_GUIDE = "readmodel_pipelines/docs/extending.md shows a complete example."


def load_extension(source: str) -> tuple[Projection, ...]:
    """The projections of a module, or of a file: a name with a slash or that ends in `.py`.

    Raises:
        UsageError: it does not exist, does not load, or has no READ_MODELS.
    """
    is_file = source.endswith(".py") or "/" in source
    try:
        module = _load_file(source) if is_file else importlib.import_module(source)
        found = getattr(module, "READ_MODELS", None)
    except UsageError:
        raise
    # A script that is not meant to be imported may end the process without a message.
    except FAULTS as error:
        if isinstance(error, ModuleNotFoundError) and not is_file and f"{source}.".startswith(f"{error.name}."):
            raise UsageError(
                f"READMODEL_PROJECTIONS names the module {source}, which does not exist.",
                hint="Install it, put its folder on PYTHONPATH, or give its file instead: /path/to/it.py.",
            ) from None
        raise UsageError(
            f"READMODEL_PROJECTIONS names {source}, which does not load: {raised(error)}.",
            hint="Fix it, or remove it from READMODEL_PROJECTIONS.",
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
    """Refuse an incomplete projection, or one that conflicts with `others` or with other collections.

    Raises:
        UsageError: the message lists all errors.
    """
    try:
        wrong = [*_of_another_type(projection)] or [
            *_clashes(projection, others, collections),
            *_flaws(projection),
            *_flaws_of_fold(projection.fold, others),
        ]
    except FAULTS as error:
        wrong = [f"it cannot be checked: {raised(error)}"]
    if wrong:
        raise UsageError(
            f"READMODEL_PROJECTIONS names {source}, whose read model {projection.name!r} cannot be used: "
            f"{'; '.join(wrong)}.",
            hint=f"Correct it there. {_GUIDE}",
        )


def _of_another_type(projection: Projection) -> Iterator[str]:
    """Errors that prevent the other checks."""
    fold = projection.fold
    if not isinstance(fold, Fold) or not isinstance(fold.events, Mapping):
        yield "fold is no Fold with a mapping of events"
        return
    of_projection, of_fold = ("name", "read_model", "key", "description"), ("aggregate_type", "prefix")
    texts = {name: getattr(item, name) for item, own in ((projection, of_projection), (fold, of_fold)) for name in own}
    yield from (f"{what} is {text!r}, which is no text" for what, text in texts.items() if not _is_text(text))
    read = {f"fields of {name}": item.fields for name, item in fold.events.items() if isinstance(item, EventType)}
    read["envelope"] = fold.envelope
    several = {"owned": projection.owned, "unique": projection.unique, "stored_as": fold.stored_as, **read}
    for what, names in several.items():
        if isinstance(names, str) or not isinstance(names, Collection) or not all(map(_is_text, names)):
            yield f"{what} is {names!r}, which is no tuple of texts"
        elif what in read and not all(map(_READ.fullmatch, names)):
            yield f"{what} has invalid names of fields: {', '.join(map(repr, names))}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_utf8(value)


def _clashes(projection: Projection, others: Sequence[Projection], collections: Sequence[str]) -> Iterator[str]:
    if projection.name in (ALL, *(item.name for item in others)):
        yield f"the name {projection.name} is taken"
    if projection.read_model in (*_ASSETS, *collections, *(item.read_model for item in others)):
        yield f"the collection {projection.read_model} is taken by events, the repair queue or another read model"


def _flaws(projection: Projection) -> Iterator[str]:
    for what, text in (("name", projection.name), ("read_model", projection.read_model)):
        if not _NAME.fullmatch(text) or len(text) > _LONGEST_NAME:
            yield (
                f"{what} is {text!r}; it must begin with a to z, then a to z, 0 to 9 and _, at most {_LONGEST_NAME} "
                "characters"
            )
        elif text.startswith(("readmodel_", "system_")) or "__" in text:
            yield f"{what} is {text!r}; readmodel_…, system_… and …__… are reserved"
    owned = projection.owned
    if not owned or len(set(owned)) < len(owned):
        yield "owned is empty, or names a field twice"
    bad = [name for name in owned if not name or name == "_id" or name.startswith("$") or "." in name]
    if bad:
        yield f"owned names {', '.join(map(repr, bad))}; it must name fields of the document's top level, without _id"
    missing = [name for name in (projection.key, *projection.unique) if name not in owned]
    if missing:
        yield f"owned lacks {', '.join(missing)}, which key or unique name"
    if type(projection.schema_version) is not int or projection.schema_version < 1:
        yield f"schema_version is {projection.schema_version!r}; it must be a number from 1 on"
    if not callable(projection.document):
        yield "document is no function"
    if projection.earlier is not None and not callable(projection.earlier):
        yield "earlier is no function"
    if projection.claims is not None:
        event_type, name = projection.claims
        if event_type not in projection.fold.events or name not in projection.fold.events[event_type].fields:
            yield f"claims names {name} of {event_type}, which the fold's events do not"
    yield from _flaws_of_deciding(projection)


def _flaws_of_deciding(projection: Projection) -> Iterator[str]:
    if not isinstance(projection.decided_by, Mapping):
        yield "decided_by must be a mapping of event types to the fields of their data that decide"
        return
    events = projection.fold.events
    strangers = sorted(set(projection.decided_by) - set(events))
    if strangers:
        yield f"decided_by names {', '.join(map(repr, strangers))}, which the fold's events do not"
    for event_type, fields in projection.decided_by.items():
        read = events.get(event_type)
        if isinstance(read, EventType) and (unread := sorted(set(fields) - set(read.fields))):
            yield f"decided_by names {', '.join(unread)} of {event_type}, which its event type does not read"


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
            # One pass feeds them all, so they must agree on the event types, and on which of them count.
            if (set(fold.stored_as), fold.prefix) != (set(other.stored_as), other.prefix):
                yield (
                    f"the fold of {fold.aggregate_type} streams has another stored_as or prefix than the existing "
                    f"fold: {', '.join(other.stored_as)} and {other.prefix}"
                )
            odd = sorted(fold.events.keys() ^ other.events.keys())
            if odd:
                yield (
                    f"the fold of {fold.aggregate_type} streams must have the same event types as the existing fold: "
                    f"{', '.join(odd)}"
                )
            return
        if set(fold.stored_as) & set(other.stored_as):
            yield (
                f"the fold reads the events of {other.aggregate_type} streams, so its aggregate_type must be "
                f"{other.aggregate_type}"
            )
            return


def _load_file(source: str) -> ModuleType:
    path = Path(source).expanduser().resolve()
    name = f"readmodel_extension_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise UsageError(
            f"READMODEL_PROJECTIONS names the file {path}, which does not exist.",
            hint="Give an absolute path; a relative one depends on the current folder.",
        )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(
            f"READMODEL_PROJECTIONS names the file {source}, which is no Python file.", hint="Its name must end in .py."
        )
    module = importlib.util.module_from_spec(spec)
    # Before it is executed, because a dataclass in it looks up its module there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
