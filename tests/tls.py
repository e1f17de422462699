"""Certificates, and what ends TLS in front of a plain Valkey: the one that we bring is built without."""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Authority:
    """Signs certificates. `file` is its own, as `ssl_ca_certs` wants it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        own = _certificate(self._name, self._key, self._name, self._key, x509.BasicConstraints(True, 0))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """A certificate for some addresses, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(one)) for one in addresses])
        certificate = _certificate(subject, key, self._name, self._key, names)
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    by: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day)
    return made.add_extension(extension, critical=False).sign(by, hashes.SHA256())


class TlsFront:
    """Ends TLS in front of a plain server. `heard` is what clients said, decrypted."""

    def __init__(
        self, behind: int, certificate: tuple[Path, Path], clients: Path | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients)
        self._behind = behind
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family)
        self.port = self._listening.getsockname()[1]
        self.heard = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listening.accept()[0],), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            plain,
            self._context.wrap_socket(plain, server_side=True) as client,
            socket.create_connection(("127.0.0.1", self._behind)) as server,
        ):
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
            while said := client.recv(65536):
                self.heard += said
                server.sendall(said)

    def _answers(self, server: socket.socket, client: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65536):
                client.sendall(said)


@contextlib.contextmanager
def tls_front(
    behind: int, certificate: tuple[Path, Path], clients: Path | None = None, host: str = "127.0.0.1"
) -> Iterator[TlsFront]:
    """One in front of a port of this machine. `clients`: who signs those that may come in."""
    front = TlsFront(behind, certificate, clients, host)
    try:
        yield front
    finally:
        front.close()
