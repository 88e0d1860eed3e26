"""A private authority and certificates of it, made by the `openssl` program: for a server, for clients, for nobody."""

import shutil
import subprocess
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def why_not() -> str:
    """Why there can be none here; empty when there can."""
    return "" if shutil.which("openssl") else "no openssl here; install it, on Debian with `apt-get install openssl`"


class Authority:
    """`file` is what those who trust it are given; certificates lie beside it in `folder`, each with its key."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self.file, self._key = folder, folder / f"{name}.pem", folder / f"{name}.key"
        of_an_authority = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        _openssl(
            *("req", "-x509", *_CURVE, "-noenc", "-keyout", self._key, "-out", self.file, "-days", "2"),
            *("-subj", f"/O=Tests/CN={name}"),
            *(word for extension in of_an_authority for word in ("-addext", extension)),
        )

    def certificate(self, name: str, *, unit: str, hosts: str = "", days: int = 2, password: str = "") -> Path:
        """A file with certificate and key, the key encrypted where there is a password; `days` below 0: it is over."""
        made, key, request = (self.folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        encrypted = ("-passout", f"pass:{password}") if password else ("-noenc",)
        subject = f"/O=Tests/OU={unit}/CN={name}"
        _openssl("req", "-new", *_CURVE, *encrypted, "-keyout", key, "-out", request, "-subj", subject)
        extensions = request.with_suffix(".ext")
        names = f"subjectAltName={hosts}\n" if hosts else ""
        extensions.write_text(f"{names}extendedKeyUsage=serverAuth,clientAuth\nauthorityKeyIdentifier=keyid\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-out", made),
            *("-days", str(days), "-extfile", extensions),
        )
        made.write_text(made.read_text() + key.read_text())
        return made

    @staticmethod
    def subject(name: str, *, unit: str) -> str:
        """The user that a certificate stands for, as the server has it."""
        return f"CN={name},OU={unit},O=Tests"


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=240)
