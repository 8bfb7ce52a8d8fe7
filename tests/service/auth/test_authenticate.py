"""API keys and the gate: what opens, what does not, and that nothing tells one refusal from another."""

from __future__ import annotations

import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.auth import authenticate as gate_module
from service.auth.api_key import (
    ApiKey,
    KeyText,
    is_key_id,
    without_secrets,
)
from service.auth.authenticate import Authenticator
from service.auth.key_store import REVOCATION_DELAY_S, KeyStore
from service.errors import InvalidRequest, StoreError, StoreUnavailable, Unauthorized, UnknownApiKey
from service.store import keys
from service.store.folder import FolderStore

HOSTILE_IDS = (
    "../x",
    "../../etc/passwd",
    "a/b",
    "",
    ".",
    "x" * 5000,
    "A" * 12,
    "0123456789ab/",
    "0123456789ab\n",
    "é" * 12,
)


class CountingStore(FolderStore):
    """A folder store that notes the keys which were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, link_secret=b"0" * 16, public_url="http://localhost")
        self.read: list[str] = []

    def get(self, key: str, **options: Any) -> bytes:
        self.read.append(key)
        return super().get(key, **options)


class Clock:
    """Seconds that pass when a test says so, for the gate, and the moment of day for the ring."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.began = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


@pytest.fixture
def key_store(store: CountingStore, clock: Clock) -> KeyStore:
    return KeyStore(store, now=clock.now)


@pytest.fixture
def authenticator(key_store: KeyStore, clock: Clock) -> Authenticator:
    return Authenticator(key_store, clock=clock)


def bearer(key: KeyText) -> str:
    return f"Bearer {key.text()}"


def refusal(authenticator: Authenticator, authorization: str | None) -> dict[str, object]:
    with pytest.raises(Unauthorized) as caught:
        authenticator.tenant(authorization)
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    return caught.value.problem()


def test_a_key_is_stored_as_a_hash_alone(key_store: KeyStore, store: CountingStore) -> None:
    key, record = key_store.create("acme", name="Ana's laptop")
    kept = store.get(keys.api_key(key.id)).decode()
    assert ApiKey.model_validate_json(kept) == record == key_store.find(key.id)
    assert key.secret not in kept
    assert record.secret_sha256 == key.sha256() in kept
    assert (record.tenant, record.name, record.expires_at, record.revoked_at) == ("acme", "Ana's laptop", None, None)
    assert key.secret not in repr(key)
    assert key.secret not in repr(record)


def test_keys_are_long_recognisable_and_never_the_same() -> None:
    drawn = [KeyText.new() for _ in range(200)]
    assert len({key.id for key in drawn}) == len({key.secret for key in drawn}) == 200
    assert all(len(key.secret) * 5 >= 256 and is_key_id(key.id) for key in drawn)
    assert all(KeyText.parse(key.text()) == key for key in drawn)
    assert without_secrets(f"a {drawn[0].text()} b") == f"a tws_{drawn[0].id}_******** b"


def test_without_any_key_every_request_is_the_default_tenants(
    authenticator: Authenticator, key_store: KeyStore, clock: Clock
) -> None:
    assert authenticator.tenant(None) == authenticator.tenant("Bearer nonsense") == "default"
    key, _ = key_store.create("acme")
    clock.seconds += REVOCATION_DELAY_S
    assert authenticator.tenant(bearer(key)) == "acme"
    refusal(authenticator, None)


def test_deleted_or_revoked_keys_do_not_open_the_api(
    authenticator: Authenticator, key_store: KeyStore, store: CountingStore, clock: Clock
) -> None:
    key, _ = key_store.create("acme")
    key_store.revoke(key.id)
    refusal(authenticator, None)
    store.delete(keys.api_key(key.id))
    clock.seconds += 10 * REVOCATION_DELAY_S
    refusal(authenticator, None)


def test_the_setting_decides_where_it_is_not_auto(key_store: KeyStore) -> None:
    refusal(Authenticator(key_store, "true"), None)
    key, _ = key_store.create("acme")
    assert Authenticator(key_store, "true").tenant(bearer(key)) == "acme"
    assert (
        Authenticator(key_store, "false").tenant(None)
        == Authenticator(key_store, "false").tenant(bearer(key))
        == "default"
    )


def test_the_scheme_is_read_in_any_case(authenticator: Authenticator, key_store: KeyStore) -> None:
    key, _ = key_store.create("acme")
    for header in (f"bearer {key.text()}", f"BEARER  {key.text()} "):
        assert authenticator.tenant(header) == "acme"


def test_all_bad_keys_get_one_answer(authenticator: Authenticator, key_store: KeyStore, clock: Clock) -> None:
    good, _ = key_store.create("acme")
    revoked, _ = key_store.create("acme")
    key_store.revoke(revoked.id)
    expired, _ = key_store.create("acme", expires_in=timedelta(seconds=5))
    clock.seconds += 5
    unknown = KeyText.new()
    texts = [
        revoked.text(),
        expired.text(),
        unknown.text(),
        f"tws_{good.id}_{unknown.secret}",
        f"tws_{unknown.id}_{good.secret}",
    ]
    texts += [
        good.text()[:-1],
        good.text() + "0",
        good.text().upper(),
        good.text().replace("tws", "ghp"),
        good.secret,
        good.id,
        "",
    ]
    texts += [f"tws_{hostile}_{good.secret}" for hostile in HOSTILE_IDS]
    answers = [refusal(authenticator, f"Bearer {text}") for text in texts]
    answers += [
        refusal(authenticator, header)
        for header in (good.text(), f"Basic {good.text()}", f"Bearer {good.text()} x", "", "Bearer")
    ]
    assert all(answer == answers[0] for answer in answers)
    told = json.dumps(answers[0])
    assert not any(secret in told for secret in (good.id, good.secret, unknown.secret))
    assert authenticator.tenant(bearer(good)) == "acme"


def test_secrets_are_compared_in_constant_time_whatever_is_wrong(
    authenticator: Authenticator, key_store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []

    def note(a: str, b: str) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    class Noted:
        compare_digest = staticmethod(note)

    monkeypatch.setattr(gate_module, "hmac", Noted)
    good, record = key_store.create("acme")
    revoked, revoked_record = key_store.create("acme")
    key_store.revoke(revoked.id)
    unknown, wrong = KeyText.new(), KeyText(good.id, KeyText.new().secret)
    assert authenticator.tenant(bearer(good)) == "acme"
    for bad in (revoked, unknown, wrong):
        refusal(authenticator, bearer(bad))
    assert [given for given, _ in compared] == [good.sha256(), revoked.sha256(), unknown.sha256(), wrong.sha256()]
    kept = [held for _, held in compared]
    assert kept[0] == kept[3] == record.secret_sha256
    assert kept[1] == revoked_record.secret_sha256
    assert len(kept[2]) == 64
    assert kept[2] not in (record.secret_sha256, revoked_record.secret_sha256)


def test_a_revoked_key_is_accepted_for_ten_seconds_at_most(
    authenticator: Authenticator, key_store: KeyStore, clock: Clock, store: CountingStore
) -> None:
    key, _ = key_store.create("acme")
    assert authenticator.tenant(bearer(key)) == "acme"
    key_store.revoke(key.id)
    store.read.clear()
    clock.seconds += REVOCATION_DELAY_S - 0.1
    assert authenticator.tenant(bearer(key)) == "acme"
    assert store.read == [], "within the time the store is left alone"
    clock.seconds += 0.1
    refusal(authenticator, bearer(key))
    assert REVOCATION_DELAY_S == 10


def test_knows_is_true_only_if_no_request_to_the_store_follows(
    authenticator: Authenticator,
    key_store: KeyStore,
    clock: Clock,
    store: CountingStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = bearer(KeyText.new())
    assert not authenticator.knows(None), "whether there is a key at all must be looked for"
    authenticator.tenant(None)
    assert authenticator.knows(None)
    assert authenticator.knows(unknown)
    key, _ = key_store.create("acme")
    clock.seconds += REVOCATION_DELAY_S
    assert not authenticator.knows(bearer(key))
    authenticator.tenant(bearer(key))
    refusal(authenticator, unknown)
    headers = [None, "", "Basic x", "Bearer nonsense", bearer(key), unknown]
    with monkeypatch.context() as patch:
        for method in ("get", "head", "list"):
            patch.delattr(FolderStore, method)
        patch.delattr(CountingStore, "get")
        assert all(authenticator.knows(header) for header in headers)
        assert authenticator.tenant(bearer(key)) == "acme"
        for header in headers:
            if header != bearer(key):
                refusal(authenticator, header)
    clock.seconds += REVOCATION_DELAY_S
    assert [authenticator.knows(header) for header in headers] == [True] * 4 + [False] * 2
    assert Authenticator(key_store, "false").knows(None)
    assert Authenticator(key_store, "true").knows(None)
    assert not Authenticator(key_store, "true").knows(bearer(key))


def test_an_expired_key_is_not_accepted_from_memory_either(
    authenticator: Authenticator, key_store: KeyStore, clock: Clock
) -> None:
    key, _ = key_store.create("acme", expires_in=timedelta(seconds=3))
    assert authenticator.tenant(bearer(key)) == "acme"
    clock.seconds += 3
    refusal(authenticator, bearer(key))


def test_unknown_keys_are_remembered_too_and_never_too_many(
    authenticator: Authenticator, key_store: KeyStore, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_MAX_REMEMBERED", 3)
    key_store.create("acme")
    unknown = [KeyText.new() for _ in range(5)]
    for key in [*unknown, unknown[-1]]:
        refusal(authenticator, bearer(key))
    assert store.read.count(keys.api_key(unknown[-1].id)) == 1
    assert len(authenticator._looked_up) == 3


def test_if_the_store_does_not_answer_requests_are_refused(
    authenticator: Authenticator, key_store: KeyStore, store: CountingStore, clock: Clock
) -> None:
    key, _ = key_store.create("acme")
    assert authenticator.tenant(bearer(key)) == "acme"

    def broken(*_: object, **__: object) -> bytes:
        raise StoreUnavailable("the disk is gone")

    store.get = broken  # type: ignore[method-assign]
    clock.seconds += REVOCATION_DELAY_S
    with pytest.raises(StoreUnavailable):
        authenticator.tenant(bearer(key))


def test_an_invalid_id_never_becomes_part_of_a_store_key(key_store: KeyStore, store: CountingStore) -> None:
    key_store.create("acme")
    store.read.clear()
    for hostile in HOSTILE_IDS:
        assert not is_key_id(hostile)
        assert key_store.find(hostile) is None
        with pytest.raises(UnknownApiKey):
            key_store.revoke(hostile)
    assert store.read == []


def test_revoking_again_changes_nothing(key_store: KeyStore, clock: Clock) -> None:
    key, _ = key_store.create("acme")
    first = key_store.revoke(key.id)
    clock.seconds += 60
    assert key_store.revoke(key.id) == first == key_store.find(key.id)
    with pytest.raises(UnknownApiKey, match="twinset keys list"):
        key_store.revoke(KeyText.new().id)


@pytest.mark.parametrize("tenant", ["", "../x", "Acme", "a b", "a/b", "-a", "a.b", "a" * 64, "a\n", "ä"])
def test_a_tenants_name_is_strict(key_store: KeyStore, tenant: str) -> None:
    with pytest.raises(InvalidRequest, match="lower-case letters, digits and hyphens"):
        key_store.create(tenant)
    assert not key_store.any()


def test_a_damaged_or_misplaced_record_is_named(key_store: KeyStore, store: FolderStore) -> None:
    key, record = key_store.create("acme")
    other = KeyText.new()
    store.put(keys.api_key(other.id), record.model_dump_json().encode())
    with pytest.raises(StoreError, match="copy of another record"):
        key_store.find(other.id)
    store.put(keys.api_key(key.id), b'{"format": 9}')
    with pytest.raises(StoreError, match=r"has format 9, which a newer version of Twinset wrote"):
        key_store.find(key.id)
    assert list(key_store.list()) == []
    whole, kept = key_store.create("other")
    newer = kept.model_dump(mode="json") | {"note": "of a newer version"}
    store.put(keys.api_key(whole.id), json.dumps(newer).encode())
    assert [each.tenant for each in key_store.list()] == ["other"]
    assert json.loads(key_store.revoke(whole.id).model_dump_json())["note"] == "of a newer version"


def test_a_flood_of_unknown_keys_costs_a_few_look_ups_and_slows_no_known_key(
    authenticator: Authenticator, key_store: KeyStore, store: CountingStore, clock: Clock
) -> None:
    good, _ = key_store.create("acme")
    assert authenticator.tenant(bearer(good)) == "acme"
    store.read.clear()
    for _ in range(2000):
        refusal(authenticator, bearer(KeyText.new()))
    assert len(store.read) <= gate_module._MAX_LOOK_UP_BURST
    assert authenticator.knows(bearer(KeyText.new())), "no thread and no store is needed to refuse one more"
    assert authenticator.knows(bearer(good)), "a known key was not pushed out of memory"
    newer, _ = key_store.create("other")
    clock.seconds += REVOCATION_DELAY_S
    for _ in range(200):
        refusal(authenticator, bearer(KeyText.new()))
    assert authenticator.tenant(bearer(newer)) == "other", "a new key is known ten seconds later, also in a flood"
    store.read.clear()
    clock.seconds += 1
    for _ in range(200):
        refusal(authenticator, bearer(KeyText.new()))
    assert len(store.read) <= gate_module._LOOK_UPS_PER_S + 1
