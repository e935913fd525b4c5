"""Real clients at a server whose certificate only a company's bundle vouches for."""

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from envtune.machine import certificates
from envtune.settings.sources import read
from tests.harness import Entrypoint, Quiet, Result, clean_environ, execute

# What a client says, and nothing else, when it has been answered.
CLIENTS = {
    "urllib": "import urllib.request as u; print(u.urlopen(URL).read().decode())",
    "httpx": "import httpx; print(httpx.get(URL).raise_for_status().text)",
    "requests": "import requests; print(requests.get(URL).text)",
    "aiohttp": (
        "import aiohttp, asyncio\n"
        "async def ask():\n"
        "    async with aiohttp.request('GET', URL) as answer:\n"
        "        print(await answer.text())\n"
        "asyncio.run(ask())"
    ),
    "the Hub's": "from huggingface_hub.utils import get_session as s; print(s().get(URL).text)",
}
OFF = {
    "CURL_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": "", "SSL_CERT_FILE": "", "PYTHONHTTPSVERIFY": "0",
    "HF_HUB_DISABLE_SSL_VERIFY": "1", "GIT_SSL_NO_VERIFY": "true",
}  # fmt: skip


WHOAMI = b'{"name": "ada"}'


class _Whoami(Quiet):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(WHOAMI)))
        self.end_headers()
        self.wfile.write(WHOAMI)


@dataclass(frozen=True)
class Company:
    """A server behind a certificate of the company's own, and the bundle that vouches for it."""

    url: str
    bundle: Path


def _signed(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "company.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=company", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    return key, certificate


@contextmanager
def behind_tls(folder: Path, handler: type[BaseHTTPRequestHandler] = _Whoami) -> Iterator[Company]:
    key, certificate = _signed(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Company(f"https://127.0.0.1:{server.server_port}/", certificate)
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with behind_tls(tmp_path_factory.mktemp("company")) as made:
        yield made


def ask(client: str, company: Company, folder: Path, **given: str) -> Result:
    """Asks in a child that sees what children of a run see."""
    environ = read(environ=clean_environ(HF_HUB_OFFLINE="0", **given)).passed_on
    script = f"URL = {company.url!r}\n{CLIENTS[client]}"
    return execute([sys.executable, "-c", script], folder, environ)


@pytest.mark.parametrize("client", CLIENTS)
def test_one_bundle_is_trusted_by_every_client(
    client: str, company: Company, tmp_path: Path
) -> None:
    refused = ask(client, company, tmp_path)
    assert "CERTIFICATE_VERIFY_FAILED" in refused.err
    trusted = ask(client, company, tmp_path, SFT_CA_BUNDLE=str(company.bundle))
    assert trusted.out.encode().strip() == WHOAMI, trusted.err


@pytest.mark.parametrize("client", CLIENTS)
def test_nothing_is_verified_only_where_that_is_said(
    client: str, company: Company, tmp_path: Path
) -> None:
    refused = ask(client, company, tmp_path, **OFF)
    assert "CERTIFICATE_VERIFY_FAILED" in refused.err
    answered = ask(client, company, tmp_path, SFT_INSECURE_TLS="true")
    assert answered.out.encode().strip() == WHOAMI, answered.err


def test_our_own_requests_trust_the_bundle_too(company: Company, entrypoint: Entrypoint) -> None:
    place = {"HF_ENDPOINT": company.url, "HF_TOKEN": "hf_0123456789", "HF_HUB_OFFLINE": "0"}
    login = ("envtune", "login")
    assert "a certificate is not trusted; set SFT_CA_BUNDLE" in entrypoint.run(*login, **place).err
    for trusted in ({"SFT_CA_BUNDLE": str(company.bundle)}, {"SFT_INSECURE_TLS": "1"}):
        assert "logged in as ada" in entrypoint.run(*login, **place, **trusted).err


def test_a_toggle_of_old_is_told_and_not_followed(entrypoint: Entrypoint) -> None:
    told = entrypoint.run("envtune", "check", **OFF).err
    [line] = [line for line in told.splitlines() if "asked to verify no certificate" in line]
    assert " WARNING " in line
    assert all(name in line for name in OFF)
    assert "SFT_CA_BUNDLE" in line
    assert set(OFF) == set(certificates.TOGGLES)


def test_no_verification_is_told_at_every_start(entrypoint: Entrypoint) -> None:
    told = entrypoint.run("envtune", "check", SFT_INSECURE_TLS="true").err
    assert " WARNING SFT_INSECURE_TLS: certificates are NOT verified" in told


def test_a_clients_own_bundle_is_stronger_and_a_proxy_is_passed_on() -> None:
    environ = {
        "SFT_CA_BUNDLE": "company.pem",
        "AWS_CA_BUNDLE": "/aws.pem",
        "HTTPS_PROXY": "http://p:1",
    }
    seen = read(environ=environ).passed_on
    assert seen["AWS_CA_BUNDLE"] == "/aws.pem"
    assert seen["HTTPS_PROXY"] == "http://p:1"
    assert seen["SSL_CERT_FILE"] == str(Path("company.pem").absolute())


REFUSED = [
    ({"SFT_CA_BUNDLE": "/none.pem"}, "SFT_CA_BUNDLE: /none.pem cannot be read: No such file"),
    ({"SFT_CA_BUNDLE": "rows.pem"}, "holds no certificate in PEM form"),
    ({"SFT_CA_BUNDLE": "rows.pem", "SFT_INSECURE_TLS": "1"}, "SFT_INSECURE_TLS: is true and"),
]


@pytest.mark.parametrize(("change", "line"), REFUSED)
def test_a_bundle_that_is_none_is_refused(
    change: dict[str, str], line: str, entrypoint: Entrypoint
) -> None:
    (entrypoint.folder / "rows.pem").write_text('{"text": "a"}\n')
    result = entrypoint.run("envtune", "check", **change)
    assert result.code == 1
    assert line in result.err
    assert "Traceback" not in result.err
