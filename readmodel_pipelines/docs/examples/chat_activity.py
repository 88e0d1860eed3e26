"""Chat activity: which chats are in use and which fell silent. One document for each chat that is not deleted.

READMODEL_PROJECTIONS=readmodel_pipelines/docs/examples/chat_activity.py adds it wherever read models are listed;
extending.md beside this folder goes through it line by line.
"""

from bson.datetime_ms import DatetimeMS

from readmodel_pipelines import (
    CHAT_FOLD,
    ZERO_TIME_MS,
    Document,
    Event,
    EventType,
    Fold,
    Projection,
    occurred_at_ms,
    text,
)


class Activity:
    """The state of a chat stream; every fold's state has `created` and `version`."""

    def __init__(self) -> None:
        self.created = False
        self.version = 0
        self.deleted = False
        self.workspace_id = ""
        self.people: set[str] = set()
        self.last_event_at = ZERO_TIME_MS


def happened(activity: Activity, event: Event) -> None:
    """Any event: it counts as activity. The latest one, not the last: the application's clocks run backwards."""
    activity.last_event_at = max(activity.last_event_at, occurred_at_ms(event))


def created(activity: Activity, event: Event) -> None:
    """The first event. A stream without it is malformed."""
    activity.created = True
    activity.workspace_id = text(event, "workspace_id")
    happened(activity, event)


def participant_added(activity: Activity, event: Event) -> None:
    """Somebody joined; whoever leaves has taken part all the same."""
    activity.people.add(text(event, "user_id"))
    happened(activity, event)


def deleted(activity: Activity, event: Event) -> None:
    """The chat is gone, and its document goes."""
    activity.deleted = True


FOLD = Fold(
    aggregate_type="chat",
    stored_as=("Chat", "chat"),
    prefix="chat.",
    start=Activity,
    # Every type of the stream, each with the fields of `data` that are read from it; no others come from MongoDB.
    events=dict.fromkeys(CHAT_FOLD.events, EventType(happened))
    | {
        "chat.created": EventType(created, ("workspace_id",)),
        "chat.participant_added": EventType(participant_added, ("user_id",)),
        "chat.deleted": EventType(deleted),
    },
    envelope=("occurred_at",),
)


def document(chat_id: str, activity: Activity) -> Document | None:
    """The expected document, or None."""
    if activity.deleted:
        return None
    return {
        "chat_id": chat_id,
        "workspace_id": activity.workspace_id,
        "version": activity.version,
        "people": len(activity.people),
        "last_event_at": DatetimeMS(activity.last_event_at),
    }


READ_MODELS = (
    Projection(
        name="chat_activity",
        read_model="chat_activity_read_model",
        fold=FOLD,
        key="chat_id",
        owned=("chat_id", "workspace_id", "version", "people", "last_event_at"),
        document=document,
        optional=True,
        decided_by={"chat.created": (), "chat.deleted": ()},
        schema_version=1,
        description="One document per chat: how many took part, and when something last happened in it.",
    ),
)
