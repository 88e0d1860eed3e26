"""Collections built beside live ones, made by a test: with the fence that a rebuild would know them by."""

from readmodel_pipelines.cutover.built import built
from readmodel_pipelines.mongo.driver import ClientSession, Database
from readmodel_pipelines.mongo.fenced import Fence, FencedCollection


class Alone:
    """Holds whatever it takes: nobody else is there."""

    def confirm(self) -> None: ...

    def claim(self, session: ClientSession) -> None: ...


def fence(database: Database, name: str) -> Fence:
    """What a collection that is there is known by."""
    (found,) = built(database, [name])
    return found


def fenced(database: Database, name: str) -> FencedCollection:
    """A collection that is there, behind its fence."""
    return FencedCollection(database, fence(database, name))
