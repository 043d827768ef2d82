"""A run as an in-toto attestation: who holds the tree can be shown later that it passed, and by whom that was seen.

The statement (in-toto Statement v1, predicate test-result v0.1) is about the commit and the tree; the envelope is DSSE
1.0, signed with an Ed25519 key of OpenSSH. Who may sign stands in the repository's file of signers.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from sqa.attestation import NAMESPACE
from testbed.errors import CHECK_FAILED, DeepError

PAYLOAD = "application/vnd.in-toto+json"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
KEY = "ssh-ed25519"
FIRST_COMMIT = "firstCommit"


def statement(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is attested: the tree, the verdict on each criterion, and the standards it was held against."""
    digest = {"sha256": document["tree"]}
    if document["revision"]:
        digest["gitCommit"] = document["revision"]
    by_verdict = {
        verdict: [one["id"] for one in document["criteria"] if one["verdict"] == verdict] for verdict in VERDICTS
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": document["repository"], "digest": digest, **_annotated(document["first_commit"])}],
        "predicateType": PREDICATE,
        "predicate": {
            "result": "PASSED" if document["ok"] else "FAILED",
            "configuration": [
                {"name": f"{one['name']} {one['version']}", "uri": one["url"]} for one in document["standards"].values()
            ],
            "passedTests": by_verdict["pass"],
            "warnedTests": by_verdict["inconclusive"],
            "failedTests": by_verdict["fail"],
            "notApplicableTests": by_verdict["not_applicable"],
            "badge": document["badge"],
            "gate": document["gate"],
            "created": document["created"],
            "acceptedFindings": dict(sorted(Counter(document["accepted"].values()).items())),
            "waivers": [{"id": one["id"], "expires": one["expires"]} for one in document["waivers"]],
        },
    }


def _annotated(first_commit: str) -> dict[str, Any]:
    """What says of which repository the tree is: its folder can be called anything."""
    return {"annotations": {FIRST_COMMIT: first_commit}} if first_commit else {}


def of_repository(said: Mapping[str, Any]) -> str:
    """The first commit of the repository that a statement is about, empty where it does not say."""
    return str(said["subject"][0].get("annotations", {}).get(FIRST_COMMIT, ""))


VERDICTS = ("pass", "inconclusive", "fail", "not_applicable")


def sign(document: Mapping[str, Any], key: Path) -> dict[str, Any]:
    """The envelope; raises ``DeepError`` for a partial run and for a key that cannot sign."""
    if not document["complete"]:
        raise DeepError(
            "a run over a part is not attested", next_step="deep sqa run, without --changed, --check and --criteria"
        )
    return sealed(statement(document), key)


def sealed(said: Mapping[str, Any], key: Path) -> dict[str, Any]:
    """The DSSE envelope of an in-toto statement; raises ``DeepError`` for a key that cannot sign."""
    private = _private(key)
    payload = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    signature = private.sign(_encoded(payload))
    return {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": keyid(private.public_key()), "sig": base64.b64encode(signature).decode()}],
    }


def verify(envelope: Mapping[str, Any], signers: Path, *, committed: str | None = None) -> tuple[str, dict[str, Any]]:
    """Who signed, and the statement; raises ``DeepError`` for an envelope that none of the signers has signed.

    ``committed``: what the file of signers says in a commit, where that counts and not what lies there now.
    """
    return opened(envelope, signers, PREDICATE, committed=committed)


def opened(
    envelope: Mapping[str, Any], signers: Path, predicate: str, *, committed: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Who signed, and the statement, which has a predicate of this type; raises ``DeepError`` where that is not so."""
    known = {keyid(key): (who, key) for who, key in _signers(signers, committed)}
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [(one["keyid"], base64.b64decode(one["sig"], validate=True)) for one in envelope["signatures"]]
    except (KeyError, TypeError, ValueError) as broken:
        raise _refused("not a DSSE envelope", f"{type(broken).__name__}: {broken}") from broken
    if envelope.get("payloadType") != PAYLOAD:
        raise _refused("not an in-toto attestation", str(envelope.get("payloadType")))
    for name, signature in signatures:
        if name in known and _holds(known[name][1], signature, payload):
            return known[name][0], _statement(payload, predicate)
    raise _refused("no signature of a known signer holds", ", ".join(name for name, _ in signatures) or "no signature")


def _statement(payload: bytes, predicate: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(payload)
    if said.get("predicateType") != predicate:
        raise _refused("an attestation of something else", str(said.get("predicateType")))
    return said


def keyid(key: Ed25519PublicKey) -> str:
    """The key's fingerprint as ``ssh-keygen -l`` prints it."""
    blob = base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed is the type too."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _holds(key: Ed25519PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, _encoded(payload))
    except InvalidSignature:
        return False
    return True


def _private(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError as missing:
        raise DeepError("no such key", found=str(path), next_step="ssh-keygen -t ed25519 -f FILE") from missing
    except (ValueError, TypeError, UnsupportedAlgorithm) as wrong:
        raise DeepError(
            "the key cannot be read", found=f"{path}: {wrong}", needed="an OpenSSH key without passphrase"
        ) from wrong
    if not isinstance(key, Ed25519PrivateKey):
        raise DeepError("the key is of another kind", found=type(key).__name__, needed="Ed25519: ssh-keygen -t ed25519")
    return key


def _signers(path: Path, committed: str | None) -> list[tuple[str, Ed25519PublicKey]]:
    """Principals and Ed25519 keys of an ALLOWED SIGNERS file of ssh-keygen(1).

    A key with an option that is not understood here (a time, a certificate authority) is trusted with nothing.
    """
    try:
        lines = (path.read_text(encoding="utf-8") if committed is None else committed).splitlines()
    except FileNotFoundError as missing:
        raise DeepError(
            "nobody may sign", found=f"no file {path}", needed="a line PRINCIPAL KEY for each signer",
            next_step=f'echo "PRINCIPAL $(cat KEY.pub)" >> {path}, by a reviewed change',
        ) from missing  # fmt: skip
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if KEY not in words or words[0].startswith("#") or not _usable(words[1 : words.index(KEY)]):
            continue
        try:
            key = load_ssh_public_key(" ".join(words[words.index(KEY) :][:2]).encode())
        except (ValueError, UnsupportedAlgorithm) as wrong:
            raise DeepError(f"{path}:{number}: not a key", found=str(wrong), next_step="correct the line") from wrong
        if isinstance(key, Ed25519PublicKey):
            keys.append((words[0], key))
    return keys


def _usable(options: list[str]) -> bool:
    """Whether a line of the file of signers is for statements: without options, or for this namespace alone."""
    if not options:
        return True
    name, _, value = " ".join(options).partition("=")
    spaces = value.strip('"').split(",")
    return name == "namespaces" and any(fnmatch.fnmatchcase(NAMESPACE, one.strip()) for one in spaces)


def _refused(message: str, found: str) -> DeepError:
    return DeepError(
        message,
        found=found,
        needed="a signature by a key of the file of signers",
        next_step="have it signed anew by somebody whom the file names",
        exit_code=CHECK_FAILED,
    )
