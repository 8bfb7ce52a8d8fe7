"""Opens the object store that the settings name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.errors import SettingsError
from service.settings import Settings
from service.store.base import ObjectStore
from service.store.signing import load_or_create_secret


def open_store(settings: Settings) -> ObjectStore:
    """The store of ``settings.store_url``; a missing folder is created, a bucket must exist.

    No network is used. Raises SettingsError for a URL of no known store, StoreUnavailable for a
    folder that cannot be created.
    """
    url = urlsplit(settings.store_url)
    if url.scheme == "file":
        from service.store.folder import FolderStore

        return FolderStore(Path(unquote(url.path)), link_secret=link_secret(settings), public_url=settings.public_url)
    if url.scheme == "s3" and url.netloc:
        # importing boto3 takes a third of a second and 30 MB, so it is imported only for S3
        from service.store.s3 import S3Store

        return S3Store(
            url.netloc,
            prefix=url.path.strip("/"),
            endpoint_url=settings.s3_endpoint_url,
            public_endpoint_url=settings.s3_public_endpoint_url,
            region=settings.s3_region,
        )
    raise SettingsError(
        f"TWINSET_STORE_URL={settings.store_url} is not the URL of a store; write file:///absolute/folder or s3://bucket/prefix"
    )


def link_secret(settings: Settings) -> bytes:
    """The secret of the links that the API serves itself: the setting, else the one in ``data_dir/secret``.

    A secret is created only beside a folder store: several API processes on S3 would each create their own, and refuse
    each other's links. Raises :class:`SettingsError` on S3, and where the file cannot be read or created.
    """
    if settings.link_secret is not None:
        return settings.link_secret.get_secret_value().encode()
    if not can_sign_links(settings):
        raise SettingsError(
            "links into shards are signed, and this service has no secret to sign them with; set TWINSET_LINK_SECRET "
            "to the same value for all API processes"
        )
    return load_or_create_secret(settings.data_dir / "secret")


def can_sign_links(settings: Settings) -> bool:
    """Whether all API processes share a secret for links."""
    return settings.link_secret is not None or urlsplit(settings.store_url).scheme == "file"
