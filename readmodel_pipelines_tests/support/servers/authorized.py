"""A real mongod that asks for a password and checks rights; users with just the privileges that a test gives them."""

import secrets
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

import pytest
from pydantic import SecretStr
from pymongo import MongoClient

from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.servers.embedded import own_server
from readmodel_pipelines_tests.support.waiting import wait_until

Privilege = dict[str, Any]


class AuthorizedServer:
    """`uri` is that of an administrator who may do everything."""

    def __init__(self, address: str, user: str, password: str, **options: Any) -> None:
        self._address = address
        self.uri = self.uri_of(user, password)
        self.client: MongoClient[dict[str, Any]] = MongoClient(self.uri, **options)

    def uri_of(self, user: str, password: str) -> str:
        """The address with these credentials; users are all made in the database `admin`."""
        scheme, _, rest = self._address.partition("://")
        return f"{scheme}://{user}:{quote_plus(password)}@{rest}&authSource=admin"

    def settings(self, uri: str | None = None, **changed: Any) -> Settings:
        """Settings for a user, the administrator by default."""
        return Settings(mongodb_uri=SecretStr(uri or self.uri), **changed)

    @contextmanager
    def failing(self, code: int, *commands: str, times: int = 0) -> Iterator[None]:
        """What our clients ask of these commands ends with an error of the server's: meanwhile, or so many times."""
        mode = {"times": times} if times else "alwaysOn"
        what = {"failCommands": list(commands), "errorCode": code, "appName": "readmodel_pipelines"}
        fail = {"configureFailPoint": "failCommand"}
        self.client.admin.command({**fail, "mode": mode, "data": what})
        try:
            yield
        finally:
            self.client.admin.command({**fail, "mode": "off"})

    @contextmanager
    def stuck(self, command: str, database: str, collection: str) -> Iterator[Callable[[], object]]:
        """This command on a collection does not end, meanwhile; the function waits until it has begun."""
        admin, fail = self.client.admin, {"configureFailPoint": "failCommand"}
        at = {"failCommands": [command], "namespace": f"{database}.{collection}"}
        what = {**at, "blockConnection": True, "blockTimeMS": 3_600_000}
        before = admin.command({**fail, "mode": "alwaysOn", "data": what})["count"]
        begun = {"waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 240_000}
        try:
            yield lambda: admin.command(begun)
        finally:
            its_own = {f"command.{command}": collection, "command.$db": database}
            for work in admin.aggregate([{"$currentOp": {"allUsers": True}}, {"$match": its_own}]):
                admin.command("killOp", op=work["opid"])
            admin.command({**fail, "mode": "off"})

    @contextmanager
    def building(self) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
        """No index build ends, until the second function is called; the first one waits until one has begun."""
        admin, fail = self.client.admin, {"configureFailPoint": "hangAfterStartingIndexBuild"}
        before = admin.command({**fail, "mode": "alwaysOn"})["count"]
        begun = {"waitForFailPoint": fail["configureFailPoint"], "timesEntered": before + 1, "maxTimeMS": 240_000}
        try:
            yield lambda: admin.command(begun), lambda: admin.command({**fail, "mode": "off"})
        finally:
            admin.command({**fail, "mode": "off"})

    def user(self, privileges: Iterable[Privilege]) -> str:
        """The connection string of a new user with exactly these privileges."""
        return self.user_with([self.role(privileges)])

    def role(self, privileges: Iterable[Privilege]) -> str:
        """A new role in `admin`; gives its name."""
        name = f"role_{uuid.uuid4().hex[:12]}"
        self.client.admin.command("createRole", name, privileges=list(privileges), roles=[])
        return name

    def change(self, role: str, privileges: Iterable[Privilege]) -> None:
        """Give the role these privileges; what its users are doing goes by them at once."""
        self.client.admin.command("updateRole", role, privileges=list(privileges))

    def user_with(self, roles: Iterable[str | Mapping[str, str]], password: str = "") -> str:
        """The connection string of a new user with roles that are there."""
        name, password = f"user_{uuid.uuid4().hex[:12]}", password or secrets.token_hex(8)
        self.client.admin.command("createUser", name, pwd=password, roles=list(roles))
        return self.uri_of(name, password)


@contextmanager
def authorized_server() -> Iterator[AuthorizedServer]:
    """Started without a password to make the administrator, and then again with one: a replica set of one member."""
    with own_server(started=False) as own:
        key = own.data_dir / "key"
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(32))
        open_to_all: MongoClient[Any] = MongoClient(embedded.ensure_running(own, die_with_parent=True))
        with open_to_all:
            password = secrets.token_hex(8)
            open_to_all.admin.command("createUser", "administrator", pwd=password, roles=["root"])
        embedded.stop(own)
        with pytest.MonkeyPatch.context() as patch:
            command = mongod_program.command
            more = ("--keyFile", str(key), "--setParameter", "enableTestCommands=1")
            patch.setattr(mongod_program, "command", lambda *a, **o: [*command(*a, **o), *more])
            uri = embedded.ensure_running(own, die_with_parent=True)
        server = AuthorizedServer(uri, "administrator", password)
        with server.client, MongoClient[Any](server.user_with([])) as nobody:
            # It tells its time to who is no administrator once it has made a key to sign it with.
            wait_until(lambda: "operationTime" in nobody.admin.command("ping"), every=0.05)
            yield server
