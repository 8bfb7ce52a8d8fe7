"""Signatures and secrets: those of Standard Webhooks, checked by its own library and by its libraries' common
example."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import stat
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from service.errors import SettingsError
from service.kit.webhook_secrets import new_secret, parse_secrets, written
from service.settings import Settings
from service.webhooks.secrets import tenant_keys, webhook_keys
from service.webhooks.signing import signed_headers

BODY = b'{"type":"job.succeeded","data":{"name":"Z\xc3\xbcrich"}}'


def test_the_example_that_the_libraries_of_the_standard_share() -> None:
    keys = parse_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signed_headers(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_library_of_the_standard_takes_it_with_any_of_the_secrets_in_force_and_with_no_other() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    headers = signed_headers(parse_secrets(f"{new} {old}"), "j_ended", int(time.time()), BODY)
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    for changed in ({"webhook-id": "k_ended"}, {"webhook-timestamp": str(int(time.time()) - 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(new).verify(BODY, headers | changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(BODY + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, headers)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("hunter2hunter2hunter2hunter2", "does not start with whsec_"),
        ("whsec_***", "not base64"),
        ("whsec_" + base64.b64encode(b"k" * 23).decode(), "23 bytes"),
        ("whsec_" + base64.b64encode(b"k" * 65).decode(), "65 bytes"),
        (f"{written(b'k' * 24)} whsec_c2hvcnQ=", "secret 2 has 5 bytes"),
    ],
)
def test_a_secret_of_another_form_is_refused_and_never_quoted(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        parse_secrets(text)
    assert not text or text.split()[-1] not in str(refused.value)
    if text:
        with pytest.raises(ValidationError, match=why):
            Settings(webhook_secret=text)


def test_a_secret_may_lack_its_padding() -> None:
    assert parse_secrets(written(b"k" * 25).rstrip("=")) == (b"k" * 25,)


def test_a_secret_is_made_once_beside_a_folder_store_for_its_owners_eyes(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    keys = webhook_keys(settings)
    path = tmp_path / "webhook-secret"
    assert parse_secrets(path.read_text()) == keys == webhook_keys(settings)
    assert len(keys) == 1
    assert len(keys[0]) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("whsec_c2hvcnQgYnV0IG5vdCBzbw==")
    with pytest.raises(SettingsError, match="delete it to get a new one"):
        webhook_keys(settings)


def test_a_secret_given_is_used_and_none_is_made(tmp_path: Path) -> None:
    first, second = new_secret(), new_secret()
    settings = Settings(data_dir=tmp_path, webhook_secret=f"{first} {second}")
    assert webhook_keys(settings) == parse_secrets(first) + parse_secrets(second)
    assert not (tmp_path / "webhook-secret").exists()
    assert first not in repr(settings)


def test_halves_that_meet_in_s3_have_to_be_given_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set TWINSET_WEBHOOK_SECRET"):
        webhook_keys(Settings(data_dir=tmp_path, store_url="s3://twins"))


def test_a_tenants_key_follows_from_the_secret_and_is_no_other_tenants() -> None:
    secret = b"k" * 32
    assert tenant_keys([secret], "default") == (secret,)
    (mine,), (theirs,) = tenant_keys([secret], "a"), tenant_keys([secret], "b")
    assert mine == hmac.digest(secret, b"twinset-callback-v1:a", hashlib.sha256)
    assert len({secret, mine, theirs}) == 3
    assert parse_secrets(written(mine)) == (mine,)
