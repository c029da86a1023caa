"""Signatures of adapters in the format of OpenSSF Model Signing, by a key of the home folder; nothing goes online.

The adapter store signs what it takes over and checks what is to be loaded. Anybody may check with the public key:
`model_signing verify key FOLDER --signature FOLDER/model.sig --public_key signing.pub`.

The library comes from https://github.com/sigstore/model-transparency; it signs by ECDSA with SHA-256 over P-256.
"""

import json
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from learners.settings import REFLECTIONS
from streams.errors import TrainingError
from streams.runtime.files import secret_file, write_atomically

SIGNING_KEY = "signing.key"
PUBLIC_KEY = "signing.pub"
SIGNATURE = "model.sig"
SIGNED = ("adapter_config.json", "adapter_model.safetensors", "probes.json", "manifest.json", "README.md", REFLECTIONS)
# They join an adapter's folder after its gate.
_LATER = ("gate.json", "report.md")


def sign(folder: Path, home: Path) -> None:
    """Sign the files in `folder` by the key in `home`, which is made there the first time.

    Raises `TrainingError` when the key is damaged.
    """
    from model_signing import hashing, signing  # it takes a second to import, and few processes sign

    secret_file(home / SIGNING_KEY, _new_key)
    key = _private(home)
    if key is None:
        raise TrainingError(
            f"{home / SIGNING_KEY} is not a key that signs adapters: restore it from a backup, or move it and "
            f"{PUBLIC_KEY} away for new ones; what the old key signed can then not be checked"
        )
    if not (home / PUBLIC_KEY).exists():
        write_atomically(home / PUBLIC_KEY, _pem(key.public_key()))
    ignored = [folder / name for name in (SIGNATURE, *_LATER)]
    hashed = hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)
    config = signing.Config().use_elliptic_key_signer(private_key=home / SIGNING_KEY).set_hashing_config(hashed)
    config.sign(folder, folder / SIGNATURE)


def check_signature(folder: Path, home: Path) -> bool:
    """Return whether `folder` is signed by the key of `home`; False where it has no signature, or there is no key.

    Raises `TrainingError` when a file, or the signature, is not what was signed.
    """
    signature, key = folder / SIGNATURE, trusted_key(home)
    if not signature.is_file() or key is None:
        return False
    from model_signing import hashing, verifying
    from sigstore_models.bundle.v1 import Bundle

    try:
        text = signature.read_text()
        # A changed byte may also be one that no reader looks at.
        if Bundle.from_dict(json.loads(text)).to_json() != text:
            raise ValueError("it is not written as a signature is")
        hashed = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
        with NamedTemporaryFile() as public:
            public.write(_pem(key))
            public.flush()
            verifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(public.name))
            verifier.set_hashing_config(hashed).verify(folder, signature)
    except Exception as error:
        # The library and what it stands on raise whatever a damaged file makes of them.
        raise TrainingError(
            f"{signature} does not vouch for {_what_differs(str(error))}; restore the folder from a backup, or train "
            "again"
        ) from error
    return True


def _what_differs(said: str) -> str:
    """The files that the library says are not those that were signed; the adapter where it names none."""
    plain = said.replace("\\", "")
    differing = [name for name in SIGNED if f"mismatch for '{name}'" in plain]
    missing = plain.partition("Missing files in model")[2]
    return ", ".join([*differing, *(name for name in SIGNED if name in missing)]) or "the adapter"


def trusted_key(home: Path) -> ec.EllipticCurvePublicKey | None:
    """The public key of `home`, from whichever of its two files is whole; None where neither is."""
    if public_key_is_whole(home):
        return _public(home)
    private = _private(home)
    return None if private is None else private.public_key()


def public_key_is_whole(home: Path) -> bool:
    """Return whether the file of the public key is as it was written."""
    return _public(home) is not None


def private_key_is_whole(home: Path) -> bool:
    """Return whether the file of the private key is as it was written, and belongs to the public one if that is."""
    private = _private(home)
    return private is not None and _public(home) in (None, private.public_key())


def _new_key() -> bytes:
    return _private_pem(ec.generate_private_key(ec.SECP256R1()))


def _private(home: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        content = (home / SIGNING_KEY).read_bytes()
        key = serialization.load_pem_private_key(content, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) and _private_pem(key) == content else None


def _public(home: Path) -> ec.EllipticCurvePublicKey | None:
    try:
        content = (home / PUBLIC_KEY).read_bytes()
        key = serialization.load_pem_public_key(content)
    except (OSError, ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and _pem(key) == content else None


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
