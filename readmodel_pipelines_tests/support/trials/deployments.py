"""What stands in the connection strings of deployments: each works for every command, or is refused in a sentence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

from readmodel_pipelines_tests.support.servers.certificates import Authority
from readmodel_pipelines_tests.support.servers.secured import SecuredServer

BEGINNING, END = "Zq7Jx", "k9WvB"
PASSWORD = f"{BEGINNING}:/?#[]@!$&'()*+,;=% \"<>\\^`{{|}}~ü{END}"
"""With every character that means something in a connection string; its ends stay as they are however it is said."""

ApiVersion = {"READMODEL_API_VERSION": "1"}


@dataclass(frozen=True)
class Deployment:
    """`uri` is that of a user who may do everything; `environment` is set beside it, `demands` are the server's."""

    name: str
    uri: Callable[[SecuredServer], str]
    environment: Mapping[str, str] = field(default_factory=dict)
    demands: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Refused:
    """A connection string that nothing can be done with: the exit code, and what is said, with what to do."""

    name: str
    uri: Callable[[SecuredServer], str]
    code: int
    said: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    demands: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _with(options: str) -> Callable[[SecuredServer], str]:
    return lambda server: f"{server.uri}&{options}"


def _in_path(name: str) -> Callable[[SecuredServer], str]:
    return lambda server: server.uri.replace("/?", f"/{name}?")


def _encrypted(server: SecuredServer) -> str:
    return server.by_certificate(server.certified(password=PASSWORD), tlsCertificateKeyFilePassword=PASSWORD)


def _percent_escaped(server: SecuredServer) -> str:
    """As other programs escape: a blank is %20, where Python's is a +."""
    uri = server.user_with(["root"], PASSWORD)
    return uri.replace(quote_plus(PASSWORD), quote(PASSWORD, safe=""))


WANTS_A_VERSION = Deployment(
    "a server that wants a version of its API", lambda server: server.uri, ApiVersion, {"requireApiVersion": True}
)
DEPLOYMENTS = (
    Deployment("a private authority", lambda server: server.uri),
    Deployment("an authority named without tls=true", lambda server: server.uri.replace("tls=true&", "")),
    Deployment(
        "no certificate is checked", lambda server: server.uri.replace("tlsCAFile=", "tlsInsecure=true&appName=")
    ),
    Deployment("a user by certificate", lambda server: server.by_certificate(server.certified())),
    Deployment("a user by certificate whose key is encrypted", _encrypted),
    Deployment("a password with every reserved character", lambda server: server.user_with(["root"], PASSWORD)),
    Deployment("the same escaped by percents alone", _percent_escaped),
    Deployment("SCRAM-SHA-1 is named", _with("authMechanism=SCRAM-SHA-1")),
    Deployment(
        "the user is looked for in the path", lambda server: _in_path("admin")(server).replace("&authSource=admin", "")
    ),
    Deployment("another database in the path", _in_path("shop")),
    WANTS_A_VERSION,
    Deployment("one member, asked directly", _with("directConnection=true")),
    Deployment("a name of the set", _with("replicaSet=secured")),
    Deployment(
        "readers of secondaries", _with("readPreference=secondary&maxStalenessSeconds=120&readConcernLevel=local")
    ),
    Deployment("hasty writers", _with("w=1&journal=false&wTimeoutMS=1")),
    Deployment("nothing is tried again", _with("retryWrites=false&retryReads=false")),
    Deployment(
        "Python's own", _with("tz_aware=true&datetime_conversion=DATETIME_MS&unicode_decode_error_handler=ignore")
    ),
    Deployment("Java's", _with("uuidRepresentation=standard&compressors=zstd,snappy,zlib&zlibCompressionLevel=9")),
    Deployment("Node's", _with("useUnifiedTopology=true&useNewUrlParser=true&maxIdleTimeMS=1000&minPoolSize=1")),
    Deployment(".NET's", _with("guids=CSharpLegacy&uuidRepresentation=csharpLegacy&waitQueueTimeoutMS=5000&ssl=true")),
)

_QUICK = "&serverSelectionTimeoutMS=700"


def _of_another(server: SecuredServer) -> str:
    other = Authority(server.authority.folder, "another")
    return server.by_certificate(other.certificate("nobody", unit="users")) + _QUICK


def _certified(days: int) -> Callable[[SecuredServer], str]:
    """By a certificate of an authority that the server trusts, and a user that it does not know."""
    return lambda server: (
        server.by_certificate(server.authority.certificate("unknown", unit="users", days=days)) + _QUICK
    )


_KEY = ("tlsCertificateKeyFile", "tlsCertificateKeyFilePassword")

REFUSED = (
    Refused(
        "a key without its password", lambda server: server.by_certificate(server.certified(password=PASSWORD)), 2, _KEY
    ),
    Refused("a key with another password", lambda server: f"{_encrypted(server)}x", 2, _KEY),
    Refused(
        "a password of a key, not escaped", lambda server: f"{_encrypted(server).rpartition('=')[0]}={PASSWORD}", 2, ()
    ),
    Refused("nobody has that certificate", _certified(2), 3, ("authentication failed", "CN=unknown,OU=users,O=Tests")),
    Refused(
        "no certificate",
        lambda server: server.address(**server.trusted, authMechanism="MONGODB-X509"),
        3,
        ("authentication failed",),
    ),
    Refused(
        "a password with a + that is not escaped",
        lambda server: server.user_with(["root"], PASSWORD).replace("%2B", "+"),
        3,
        ("%2B",),
    ),
    Refused(
        "the user is not in the path's database",
        lambda server: _in_path("shop")(server).replace("&authSource=admin", ""),
        3,
        ("authSource",),
    ),
    Refused("no such file", lambda server: server.uri.replace("authority.pem", "none.pem"), 2, ("tlscafile",)),
    Refused("it balances no load", _with("loadBalanced=true"), 2, ("load balancing",)),
    Refused(
        "no version of the API",
        lambda server: server.uri + _QUICK,
        2,
        ("READMODEL_API_VERSION=1",),
        {},
        {"requireApiVersion": True},
    ),
    Refused(
        "no such version of the API",
        lambda server: server.uri,
        2,
        ("READMODEL_API_VERSION",),
        {"READMODEL_API_VERSION": "2"},
    ),
)

REFUSED_AFTER_A_WHILE = (
    Refused("a certificate of another authority", _of_another, 3, ("does not answer", "must be trusted")),
    Refused("a certificate that is over", _certified(-1), 3, ("does not answer", "and valid")),
    Refused(
        "no TLS",
        lambda server: f"mongodb://a:{BEGINNING}@localhost:{server.port}/?{_QUICK[1:]}",
        3,
        ("does not answer", "tls=true"),
    ),
    Refused(
        "an authority of nobody's",
        lambda server: server.uri.partition("?")[0] + f"?tls=true{_QUICK}",
        3,
        ("certificate verify failed", "tlsCAFile"),
    ),
    Refused(
        "another name of the host",
        lambda server: server.uri.replace("localhost", "127.0.0.1") + _QUICK,
        3,
        ("'127.0.0.1'", "the host name of that certificate"),
    ),
    Refused("another name of the set", _with(f"replicaSet=rs9{_QUICK}"), 3, ('"rs9"', "READMODEL_MONGODB_URI")),
)
"""As long as a server is looked for."""
