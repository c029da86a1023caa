"""A check of every file of the home that says what it should hold. `ratchet verify` prints what is found.

What a change would hide from, and what nothing can tell, is in `UNCHECKED`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from daemon.registry.audit import AuditEntry
from daemon.registry.hints import command
from daemon.registry.refs import Refs, refs_told
from daemon.registry.registry import REFS_FILE, Registry
from daemon.registry.task_uses import TASK_USES_FILE
from learners.adapters import AdapterStore
from learners.base_model import base_digest, file_sha256
from learners.signing import (
    PUBLIC_KEY,
    SIGNATURE,
    SIGNED,
    SIGNING_KEY,
    check_signature,
    private_key_is_whole,
    public_key_is_whole,
)
from learners.snapshots import SnapshotManifest
from ratchet_client.ids import content_id
from ratchet_client.settings import FrozenModel
from streams.access.token_file import TokenFile
from streams.errors import AuditError, TrainingError
from streams.kafka.operator_key import OPERATOR_KEY_FILE
from streams.redaction.key import KEY_FILE
from streams.runtime.files import checksum, checksum_path
from streams.runtime.json_lines import end_of_lines
from streams.trust.groups import DEFAULT_GROUP, homes_in

UNCHECKED = (
    "the store, which checks its blocks when they are read; the assembler's database, which has no checksums; logs; "
    "learner.json, instance.json, aa.json, unread.jsonl and reports of erasures; trainings, trials and canaries that "
    "have not ended; files of versions that took no fingerprints"
)


class Finding(FrozenModel):
    """A file that is not what it was: its path below the home, what that means, and what to do."""

    path: str
    problem: str
    remedy: str


class Verification(FrozenModel):
    """The result: how much was checked, what was found, and the adapters without a signature."""

    entries: int
    adapters: int
    snapshots: int
    findings: tuple[Finding, ...]
    unsigned: tuple[str, ...]
    unchecked: str = UNCHECKED


def verify(home: Path) -> Verification:
    """Check the audit log, the refs, adapters, gate reports, snapshots, the base model and keys in `home`.

    So are those of the groups of agents and tenants that have files there.
    """
    checked = [
        (one.relative_to(home), _verify(one, DEFAULT_GROUP if one == home else one.name)) for one in homes_in(home)
    ]
    return Verification(
        entries=sum(each.entries for _, each in checked),
        adapters=sum(each.adapters for _, each in checked),
        snapshots=sum(each.snapshots for _, each in checked),
        findings=tuple(
            finding.model_copy(update={"path": str(place / finding.path)})
            for place, each in checked
            for finding in each.findings
        ),
        unsigned=tuple(digest for _, each in checked for digest in each.unsigned),
    )


def _verify(home: Path, group: str) -> Verification:
    """Check the files of one group, or of the default one."""
    registry, adapters = Registry(home, group), AdapterStore(home / "adapters")
    found, unsigned, manifests = [], [], dict[str, SnapshotManifest]()
    for digest in adapters.digests():
        findings = [*_adapter(adapters, digest, registry)]
        found += findings
        if not (adapters.folder(digest) / SIGNATURE).is_file():
            unsigned.append(digest)
        if not findings:
            snapshot = adapters.manifest(digest).snapshot
            manifests[snapshot.snapshot_id] = snapshot
    entries = list[AuditEntry]()
    try:
        registry.audit.verify()
        entries = registry.audit.read()
        found += [*_end_of_log(registry), *_refs(registry, entries), *_evidence(home, entries)]
    except AuditError as error:
        found.append(_finding(home, registry.audit.path, str(error), _BACKUP))
    snapshots = sorted((home / "snapshots").glob("*/manifest.json"))
    for manifest in snapshots:
        found += _snapshot(home, manifest, manifests.get(manifest.parent.name))
    found += [*_base(home), *_keys(home), *_tokens(home)]
    return Verification(
        entries=len(entries),
        adapters=len(adapters.digests()),
        snapshots=len(snapshots),
        findings=tuple(found),
        unsigned=tuple(unsigned),
    )


_BACKUP = "restore the file from a backup"
_NEVER_LOADED = "it is never loaded, and a champion that is so does not serve again after a restart"


def _finding(home: Path, path: Path, problem: str, remedy: str) -> Finding:
    return Finding(path=str(path.relative_to(home)), problem=problem, remedy=remedy)


def _adapter(adapters: AdapterStore, digest: str, registry: Registry) -> Iterator[Finding]:
    folder, problem, home = adapters.folder(digest), "", registry.home
    never_loaded = f"{_NEVER_LOADED}: {command('rollback', registry.group)}"
    try:
        check_signature(folder, home)
    except TrainingError as error:
        problem = str(error)
    named = [name for name in SIGNED if name in problem]
    try:
        adapters.manifest(digest)
    except (TrainingError, ValidationError, OSError) as error:
        meaning = "the adapter is not what was trained and judged"
        remedy = f"{never_loaded}; restore its folder from a backup, or train again"
        for name in named or [""]:
            yield _finding(home, folder / name, meaning if name else f"{meaning}: {error}", remedy)
        return
    if problem:
        # The digest vouches for all that is loaded: what is left is the card, and the signature itself.
        path = folder / (named[0] if named else SIGNATURE)
        yield _finding(home, path, f"the adapter is not what was signed: {problem}", f"{_BACKUP}; {never_loaded}")


def _end_of_log(registry: Registry) -> Iterator[Finding]:
    path = registry.audit.path
    content = path.read_bytes() if path.is_file() else b""
    if end_of_lines(content) != len(content):
        problem = "its last line is unfinished: a process died while it wrote it, or a byte was changed"
        yield _finding(registry.home, path, problem, "if no process died, restore it; else the next entry replaces it")


def _refs(registry: Registry, entries: list[AuditEntry]) -> Iterator[Finding]:
    path = registry.home / REFS_FILE
    content = path.read_bytes() if path.is_file() else b""
    expected, tells_previous = refs_told(entries)
    try:
        refs = Refs.model_validate_json(content) if content else Refs()
        whole = not content or content == refs.model_dump_json(indent=1, exclude_unset=True).encode() + b"\n"
    except ValidationError:
        refs, whole = None, False
    if refs is not None and not tells_previous:
        expected = expected.model_copy(update={"previous": refs.previous})
    if refs != expected or not whole:
        told = f"champion {expected.champion}, previous {expected.previous}, anchor {expected.anchor}"
        problem = f"who serves is not who the audit log says: {told}"
        remedy = "start the serve role, which completes the log after a crash; else write into it what the log says"
        yield _finding(registry.home, path, problem, remedy)


def _evidence(home: Path, entries: list[AuditEntry]) -> Iterator[Finding]:
    erasures = [entry.erasure for entry in entries if entry.erasure]
    newest = {name: print_ for entry in entries if entry.cycle for name, print_ in entry.cycle.evidence.items()}
    for name, taken in sorted(newest.items()):
        path = home / name
        if not path.exists() and any(erasure.removed(name) for erasure in erasures):
            continue
        content = path.read_bytes() if path.is_file() else b""
        if not taken.fits(content, grows=name == TASK_USES_FILE):
            problem = "it is not what it was when its cycle ended, so it is no account of the verdict"
            yield _finding(home, path, problem, f"{_BACKUP}; the verdict itself stands in `ratchet history`")


def _snapshot(home: Path, path: Path, copy: SnapshotManifest | None) -> Iterator[Finding]:
    folder, content = path.parent, path.read_bytes()
    remedy = f"{_BACKUP}; what was trained on it stays as it is, and `ratchet why` has no other source"
    try:
        manifest = SnapshotManifest.model_validate_json(content)
        told = (str(manifest.as_of), str(manifest.retracted_as_of), manifest.holdout, *manifest.files.values())
        whole = content == manifest.model_dump_json(indent=2, exclude_unset=True).encode()
        whole = whole and manifest.snapshot_id == folder.name == content_id(*told) and copy in (None, manifest)
    except ValidationError:
        whole = False
    if not whole or any(not (folder / name).parent.samefile(folder) for name in manifest.files):
        yield _finding(home, path, "the snapshot's manifest is not what it was when the snapshot was made", remedy)
        return
    for name, digest in manifest.files.items():
        file = folder / name
        if not file.is_file() or file_sha256(file) != digest:
            yield _finding(home, file, "it is not what was trained on", remedy)


def _base(home: Path) -> Iterator[Finding]:
    for record in sorted((home / "base").glob("*/converted.json")):
        try:
            digest = json.loads(record.read_bytes())["digest"]
        except (ValueError, KeyError, TypeError):
            digest = ""
        if digest != base_digest(record.parent):
            problem = "the base model is not what was converted"
            yield _finding(home, record.parent, problem, "restart Ratchet: it converts it again")


def _tokens(home: Path) -> Iterator[Finding]:
    file = TokenFile(home)
    if not file.is_whole():
        problem = "it is not what `ratchet token` wrote last: a token may be unknown, or have other roles"
        yield _finding(
            home, file.path, problem, f"{_BACKUP}, or revoke what `ratchet token list` shows, and issue new ones"
        )


def _keys(home: Path) -> Iterator[Finding]:
    if (home / SIGNING_KEY).exists() and not private_key_is_whole(home):
        remedy = f"{_BACKUP}; without it no adapter can be signed as this home's"
        yield _finding(home, home / SIGNING_KEY, "it is not the key that signed adapters", remedy)
    if (home / PUBLIC_KEY).exists() and not public_key_is_whole(home):
        remedy = f"`openssl ec -in {SIGNING_KEY} -pubout -out {PUBLIC_KEY}`"
        yield _finding(home, home / PUBLIC_KEY, "it is not the key that checks signatures of adapters", remedy)
    for name, use in ((OPERATOR_KEY_FILE, "verifies retractions"), (KEY_FILE, "makes placeholders")):
        key, noted = home / name, checksum_path(home / name)
        if noted.exists() and (not key.is_file() or noted.read_bytes() != checksum(key, key.read_bytes())):
            problem = f"it is not the key that {use}, or {noted.name} was changed"
            remedy = f"{_BACKUP}; after a change on purpose: `sha256sum {name} > {noted.name}` in the home"
            yield _finding(home, key, problem, remedy)
