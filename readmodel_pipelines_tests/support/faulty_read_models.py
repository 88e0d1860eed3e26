"""Read models that somebody added, each at fault in its own way: a module for READMODEL_PROJECTIONS.

`WRONG` has those that can do no stream, by the reason that each is told with; those in `CLASHING` want unique keys that
others of theirs have.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

from bson import Regex

from readmodel_pipelines import CHAT_FOLD, EventType, Fold, Projection
from readmodel_pipelines.events.values import BadField, Event

HALF = "half an emoji \ud83d"


class Plain:
    """What every fold has to have."""

    def __init__(self) -> None:
        self.created = False
        self.version = 0


class Mute(Exception):
    """Nobody can ask it what it is."""

    def __str__(self) -> str:
        raise ValueError(HALF)


class NoEqual:
    """Nor can this be compared."""

    def __eq__(self, other: object) -> bool:
        raise Mute

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "the same in each process"


class _Later:
    """Raises each time but the first, when a projection is looked at before it is used."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._calls = count()

    def __call__(self) -> None:
        if next(self._calls):
            raise self._error


_get_created, _start = (_Later(RuntimeError(HALF)) for _ in range(2))


class NoCreated(Plain):
    """Does not say whether it is."""

    @property
    def created(self) -> bool:
        _get_created()
        return True

    @created.setter
    def created(self, value: bool) -> None: ...


class NoVersion(Plain):
    """Takes no version."""

    @property
    def version(self) -> int:
        return 0

    @version.setter
    def version(self, value: int) -> None:
        if value:
            raise RuntimeError(HALF)


def _created(state: Any, event: Event) -> None:
    state.created = True


def _starting() -> Plain:
    _start()
    return Plain()


def _recursing(*given: Any) -> Any:
    return _recursing(*given)


def _raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def _making(**fields: Any) -> Callable[[str, Any], Any]:
    return lambda key, _: {"key": key, **fields}


def _fold(created: Callable[..., None] = _created, start: Callable[[], Any] = Plain) -> Fold[Any]:
    nothing: EventType[Any] = EventType(lambda _state, _event: None)
    events = dict.fromkeys(CHAT_FOLD.events, nothing) | {"chat.created": EventType(created)}
    return Fold("chat", CHAT_FOLD.stored_as, CHAT_FOLD.prefix, start, events)


_PLAIN = _fold()


def _nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = {"in": value}
    return value


_ITSELF: dict[str, Any] = {}
_ITSELF["value"] = _ITSELF

_OF_FOLDS: dict[str, Fold[Any]] = {
    "start": _fold(start=_starting),
    "no_created": _fold(start=NoCreated),
    "no_version": _fold(start=NoVersion),
    "apply_raises": _fold(_raising(KeyError(HALF))),
    "apply_is_mute": _fold(_raising(Mute())),
    "apply_exits": _fold(_raising(SystemExit(HALF))),
    "apply_stops": _fold(_raising(StopIteration())),
    "apply_recurses": _fold(_recursing),
    "apply_has_no_memory": _fold(_raising(MemoryError())),
}
_OF_DOCUMENTS: dict[str, Callable[..., Any]] = {
    "document_raises": _raising(ValueError(HALF)),
    "document_is_mute": _raising(Mute()),
    "document_exits": _raising(SystemExit(HALF)),
    "document_recurses": _recursing,
    "a_list": lambda key, _: [key],
    "a_text": lambda key, _: key,
    "nothing_like_it": lambda _key, _state: 7,
    "no_key": lambda _key, _state: {"value": 1},
    "another_s_key": lambda _key, _state: {"key": "another"},
    "an_id": lambda key, _: {"key": key, "_id": 1},
    "no_text_for_a_name": lambda key, _: {"key": key, 1: 2},
    "a_set": _making(value={1}),
    "too_large_a_number": _making(value=2**70),
    "in_itself": _making(value=_ITSELF),
    "too_deep": _making(value=_nested(5_000)),
    "not_to_be_compared": _making(value=NoEqual()),
}
_OF_FIELDS: dict[str, tuple[str, Callable[..., Any]]] = {
    "half_an_emoji": ("bad_field", _making(value=HALF)),
    "too_large": ("document_too_large", _making(value="x" * (16 << 20))),
}


def _read_model(name: str, fold: Fold[Any], document: Callable[..., Any], *unique: str) -> Projection:
    return Projection(name, f"{name}_read_model", fold, "key", ("key", "value"), document, unique, optional=True)


_BAD_FIELD = _fold(_raising(BadField(HALF, NoEqual, HALF)))
_BY_REASON = [
    ("bad_field", _read_model("a_bad_field", _BAD_FIELD, _making())),
    *(("projection_failed", _read_model(name, fold, _making())) for name, fold in _OF_FOLDS.items()),
    *(("projection_failed", _read_model(name, _PLAIN, make)) for name, make in _OF_DOCUMENTS.items()),
    *((reason, _read_model(name, _PLAIN, make)) for name, (reason, make) in _OF_FIELDS.items()),
]
WRONG = {item.read_model: reason for reason, item in _BY_REASON}

_CLASHES: dict[str, Callable[..., Any]] = {
    "lacks_it": _making(),
    "same_null": _making(value=None),
    "same_number": _making(value=1),
    "same_document": _making(value={"$a": [1]}),
    "same_pattern": _making(value=Regex("^a")),
    "empty_list": _making(value=[]),
    "same_element": lambda key, _: {"key": key, "value": [key, "shared"]},
}
_OWN_KEYS: dict[str, Callable[..., Any]] = {
    "own_lists": lambda key, _: {"key": key, "value": [key, f"{key} too", 1.5 if key[0] == "x" else key]},
    "own_documents": lambda key, _: {"key": key, "value": {"is": [key]}},
}
_UNIQUE = {name: _read_model(name, _PLAIN, make, "value") for name, make in (_CLASHES | _OWN_KEYS).items()}
CLASHING = tuple(_UNIQUE[name].read_model for name in _CLASHES)
UNIQUE = tuple(_UNIQUE[name].read_model for name in _OWN_KEYS)

READ_MODELS = (*(item for _, item in _BY_REASON), *_UNIQUE.values())
