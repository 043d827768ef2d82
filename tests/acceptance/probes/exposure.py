"""What a host shows to whoever is on it or reaches it: secrets to read, files to write, and how a port speaks."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from tests.acceptance.probes.site import python_on

TIMEOUT = 5.0
BANNER_TIMEOUT = 1.0
# Where hosts and services keep configuration, data and logs. Not what they unpack: layers of images, pods.
DATA = ("/etc", "/home", "/root", "/srv", "/var/lib", "/var/log")
PROGRAMS = ("/opt", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin")
# The alerts of servers that ask for a certificate and get none: of TLS 1.3, and of older programs.
CERTIFICATE_WANTED = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE")
UNPACKED = ("/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet/pods")

# Runs on the host: prints {"seen": files looked at, "found": [[path, what], ...]}. Only what another user can really
# reach counts: every folder above it lets others through.
SECRETS = r"""
import json, os, re, stat, sys
LARGEST = 1 << 20
CONTENT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|client-key-data:|\"auths\":|"
    rb"(?m:^[^#\s:]+:\$(?:2[aby]|5|6|y|apr1)\$)|\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.")
NAMED = re.compile(r"(^|[._-])(password|secret|token)s?(\.(json|txt|ya?ml))?$")
roots, unpacked = json.loads(sys.argv[1])
seen, found = 0, []
for root in roots:
    for folder, folders, names in os.walk(root):
        if folder in unpacked or not os.lstat(folder).st_mode & stat.S_IXOTH:
            folders.clear()
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                state = os.lstat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(state.st_mode):
                continue
            seen += 1
            if not state.st_mode & stat.S_IROTH or not 0 < state.st_size <= LARGEST:
                continue
            with open(path, "rb") as file:
                match = CONTENT.search(file.read())
            if match or (NAMED.search(name) and not folder.startswith(("/etc/pam", "/var/lib/pam"))):
                found.append([path, (match[0][:30].decode("ascii", "replace") if match else "named like a secret")])
print(json.dumps({"seen": seen, "found": found}))
"""

# Runs on the host: prints {"seen": entries looked at, "found": [[path, mode], ...]}.
WRITABLE = r"""
import json, os, stat, sys
roots, unpacked = json.loads(sys.argv[1])
seen, found = 0, []
for root in roots:
    for folder, folders, names in os.walk(root):
        if folder in unpacked:
            folders.clear()
            continue
        for name in [*folders, *names, *(["."] if folder == root else [])]:
            path = os.path.join(folder, name)
            try:
                state = os.lstat(path)
            except FileNotFoundError:
                continue
            seen += 1
            folder_or_file = stat.S_ISDIR(state.st_mode) or stat.S_ISREG(state.st_mode)
            shared = stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX
            if folder_or_file and state.st_mode & stat.S_IWOTH and not shared:
                found.append([path, oct(stat.S_IMODE(state.st_mode))])
print(json.dumps({"seen": seen, "found": found}))
"""


def look(host: Any, script: str, roots: Sequence[str]) -> dict[str, Any]:
    """What one of the scripts sees below these folders of a host."""
    seen: dict[str, Any] = python_on(host, script, json.dumps([list(roots), list(UNPACKED)]))
    return seen


def anybody() -> ssl.SSLContext:
    """Takes whatever a server shows, for nothing is sent that it should not know, and nothing of it is believed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # nosemgrep: tls-not-verified # see above
    context.verify_mode = ssl.CERT_NONE  # nosemgrep: tls-not-verified # see above
    return context


def speaks(address: str, port: int) -> str:
    """How a port speaks: ``tls``, ``ssh`` or ``plain``; ``OSError`` where nothing can be reached there."""
    context = anybody()
    with socket.create_connection((address, port), timeout=TIMEOUT) as connection:
        try:
            with context.wrap_socket(connection):
                return "tls"
        except ssl.SSLError as refused:
            # An answer in TLS, such as one that asks for a certificate, is TLS too.
            if refused.reason not in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"):
                return "tls"
        except (ConnectionError, TimeoutError):
            pass
    return "ssh" if _banner(address, port).startswith(b"SSH-") else "plain"


def wants_certificate(address: str, port: int) -> bool:
    """Whether a port refuses whoever shows no certificate of its own, which is a login too.

    With TLS 1.3 it says so, after the handshake. Before 1.3 most say only that something has failed, which is no proof.
    """
    try:
        with (
            socket.create_connection((address, port), timeout=TIMEOUT) as connection,
            anybody().wrap_socket(connection) as channel,
        ):
            channel.recv(1)
    except ssl.SSLError as refused:
        return refused.reason in CERTIFICATE_WANTED
    except OSError:
        return False
    return False


def _banner(address: str, port: int) -> bytes:
    """What a port says first; nothing where it waits for the client."""
    with socket.create_connection((address, port), timeout=TIMEOUT) as connection:
        connection.settimeout(BANNER_TIMEOUT)
        try:
            return connection.recv(16)
        except (ConnectionError, TimeoutError):
            return b""
