"""A read model of the chats that are not closed: a module for READMODEL_PROJECTIONS.

Its documents have no version, so that one can be right again as it was: the chat was closed and opened again.
"""

from readmodel_pipelines import CHAT_FOLD, Document, Projection

READ_MODEL = "open_chats_read_model"


def _document(chat_id: str, chat: object) -> Document | None:
    """Nothing for a closed one."""
    return None if chat.status == "Closed" else {"chat_id": chat_id, "title": chat.title}  # type: ignore[attr-defined]


READ_MODELS = (
    Projection(
        name="open_chats",
        read_model=READ_MODEL,
        fold=CHAT_FOLD,
        key="chat_id",
        owned=("chat_id", "title"),
        document=_document,
        optional=True,
        schema_version=1,
        description="One document per chat that is not closed.",
    ),
)
