"""A real mongod as it stands in production: TLS by a private authority alone, users by password or by certificate."""

import os
import secrets
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.server_api import ServerApi

from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.pages.terminal import free_port
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer
from readmodel_pipelines_tests.support.servers.certificates import Authority
from readmodel_pipelines_tests.support.servers.embedded import server_folder
from readmodel_pipelines_tests.support.waiting import wait_until

SET = "secured"


class SecuredServer(AuthorizedServer):
    """Its `authority` made the certificate that it shows, for `localhost`, and makes those of its users."""

    def __init__(self, port: int, authority: Authority, user: str, password: str) -> None:
        self.port, self.authority = port, authority
        # So that it is let in while the server wants to hear of a version of its API.
        super().__init__(self.address(**self.trusted), user, password, server_api=ServerApi("1"))

    @property
    def trusted(self) -> dict[str, str]:
        """The options by which a client trusts it."""
        return {"tls": "true", "tlsCAFile": str(self.authority.file)}

    def address(self, host: str = "localhost", path: str = "", **options: str) -> str:
        """A connection string with these options and nobody in it."""
        said = "&".join(f"{name}={quote_plus(value)}" for name, value in options.items())
        return f"mongodb://{host}:{self.port}/{path}?{said}"

    def settings(self, uri: str | None = None, **changed: Any) -> Settings:
        """As those of any server; a version of the API is said."""
        return super().settings(uri, api_version="1", **changed)

    def certified(self, roles: Iterable[str | Mapping[str, str]] = ("root",), password: str = "") -> Path:
        """A certificate of a new user with these roles, its key encrypted where there is a password."""
        name = f"user-{uuid.uuid4().hex[:12]}"
        file = self.authority.certificate(name, unit="users", password=password)
        of_admin = [role if isinstance(role, Mapping) else {"role": role, "db": "admin"} for role in roles]
        self.client["$external"].command("createUser", Authority.subject(name, unit="users"), roles=of_admin)
        return file

    def by_certificate(self, file: Path, **options: str) -> str:
        """The connection string of whom a certificate stands for."""
        named = {"authMechanism": "MONGODB-X509", "tlsCertificateKeyFile": str(file)}
        return self.address(**self.trusted, **named, **options)

    @contextmanager
    def demanding(self, **parameters: Any) -> Iterator[None]:
        """These parameters, each true or false, are so meanwhile."""
        for name, value in parameters.items():
            self.client.admin.command({"setParameter": 1, name: value})
        try:
            yield
        finally:
            for name, value in parameters.items():
                self.client.admin.command({"setParameter": 1, name: not value})

    @contextmanager
    def without_primary(self) -> Iterator[None]:
        """Its only member is none meanwhile, and answers."""
        with MongoClient[Any](f"{self.uri}&directConnection=true", server_api=ServerApi("1")) as asked:
            with suppress(PyMongoError):
                asked.admin.command("replSetStepDown", 600, secondaryCatchUpPeriodSecs=0, force=True)
            wait_until(lambda: not asked.admin.command("hello")["isWritablePrimary"], every=0.02)
            try:
                yield
            finally:
                asked.admin.command("replSetFreeze", 0)
                wait_until(lambda: asked.admin.command("hello")["isWritablePrimary"], every=0.02)


@contextmanager
def secured_server() -> Iterator[SecuredServer]:
    """A replica set of one member on the loopback; it ends with the block."""
    configured = os.environ.get("READMODEL_MONGOD")
    binary = mongod_program.find_mongod(Path(configured) if configured else None)
    with server_folder() as folder:
        authority, port, password = Authority(folder), free_port(), secrets.token_hex(8)
        shown = authority.certificate("localhost", unit="servers", hosts="DNS:localhost")
        (folder / "db").mkdir()
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(secrets.token_hex(32))
        command = [
            *(str(binary), "--dbpath", str(folder / "db"), "--replSet", SET, "--keyFile", str(folder / "key")),
            *("--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket", "--tlsMode", "requireTLS"),
            *("--tlsCertificateKeyFile", str(shown), "--tlsCAFile", str(authority.file)),
            *("--tlsAllowConnectionsWithoutCertificates", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false", "--setParameter", "enableTestCommands=1"),
            *("--setParameter", "authenticationMechanisms=SCRAM-SHA-1,SCRAM-SHA-256,MONGODB-X509"),
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                _begin(f"mongodb://localhost:{port}/?tls=true&tlsCAFile={authority.file}", port, password)
                server = SecuredServer(port, authority, "administrator", password)
                with server.client:
                    yield server
            finally:
                process.kill()


def _begin(uri: str, port: int, password: str) -> None:
    """Whoever comes from the same machine may make the set, and then the first user."""

    def answers() -> bool:
        with suppress(PyMongoError):
            return bool(admin.command("ping"))
        return False

    options: dict[str, Any] = {"directConnection": True, "serverSelectionTimeoutMS": 200}
    with MongoClient[Any](uri, **options) as client:
        admin = client.admin
        wait_until(answers, every=0.02)
        admin.command("replSetInitiate", {"_id": SET, "members": [{"_id": 0, "host": f"localhost:{port}"}]})
        wait_until(lambda: admin.command("hello")["isWritablePrimary"], every=0.02)
        admin.command("createUser", "administrator", pwd=password, roles=["root"])
