"""``twinset serve`` and ``twinset worker``: the API and a worker as processes of their own."""

from __future__ import annotations

import os
import sys

import click

from service.cli.numbers import FiniteFloat


@click.command()
@click.option("--host", help="Address to listen on.  [default: TWINSET_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: TWINSET_PORT, else 8000]")
@click.option("--fd", type=click.IntRange(min=0), hidden=True, help="A listening socket that was inherited.")
def serve(host: str | None, port: int | None, fd: int | None) -> None:
    """Run the API, with a given broker and store.

    TWINSET_BROKER_URL and TWINSET_STORE_URL name them; 'twinset settings' lists all settings. Start workers with
    'twinset worker', on this or on other machines.

    On an address that other machines can reach, the API needs an API key to start: twinset keys create.
    """
    import socket

    import uvicorn

    from service.api.app import create_app
    from service.api.server import server_config
    from service.auth.bind_check import require_keys
    from service.kit.tracing import configure_tracing
    from service.local.stack import listen_on, local_address
    from service.settings import read_settings
    from service.store.opening import can_sign_links, open_store

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = read_settings(**given)
    configure_tracing(settings.otel_endpoint, "twinset-api")
    with listen_on(settings.host, settings.port) if fd is None else socket.socket(fileno=fd) as listener:
        found = {"port": listener.getsockname()[1]}
        url = f"http://{local_address(settings.host)}:{found['port']}"
        if "public_url" not in settings.model_fields_set:
            found["public_url"] = url
        settings = settings.model_copy(update=found)
        store = open_store(settings)
        # by the address of the socket, not by the name that was given for it
        settings = require_keys(settings, store, listener.getsockname()[0])
        server = uvicorn.Server(server_config(create_app(settings, store=store), settings))
        click.echo(f"The API listens at {url}; its documentation is at {url}/docs")
        if settings.shards_from_count and not can_sign_links(settings):
            click.echo(
                "Large jobs are stored as one object per file instead of shards, since links into shards are signed "
                "and TWINSET_LINK_SECRET is not set. Set it to the same value for all API processes, or set "
                "TWINSET_SHARDS_FROM_COUNT=0."
            )
        server.run(sockets=[listener])
    if not server.started:
        raise click.exceptions.Exit(1)


@click.command()
@click.option(
    "--bulk",
    is_flag=True,
    help="Run a bulk worker, for datasets, augmentation sets and exports; needs no torch or GPU.",
)
@click.option("--train", is_flag=True, help="Run a training worker: it takes trainings, one at a time.")
@click.option("--gpus", type=click.IntRange(1, 64), help="GPUs of one training, a process each.  [default: 1]")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics on this port.  [default: off]"
)
@click.option("--metrics-host", help="Address of the metrics.  [default: 127.0.0.1]")
@click.option(
    "--grace-s", type=FiniteFloat(min=0), help="Seconds to finish running chunks after SIGTERM.  [default: 8]"
)
@click.option("--warm", multiple=True, metavar="MODEL", help="Load this model at the start; may be repeated.")
def worker(
    bulk: bool,
    train: bool,
    gpus: int | None,
    metrics_port: int | None,
    metrics_host: str | None,
    grace_s: float | None,
    warm: tuple[str, ...],
) -> None:
    """Run a worker, with a given broker and store.

    TWINSET_BROKER_URL and TWINSET_STORE_URL name them; 'twinset settings' lists all settings, such as TWINSET_DEVICE.
    """
    from service.local.stack import require_worker_parts

    if not bulk:
        require_worker_parts()
    if bulk and train:
        raise click.UsageError("--bulk and --train are two kinds of workers; start one of each")
    if (bulk or train) and (warm or grace_s is not None):
        raise click.UsageError(
            "--warm and --grace-s are for workers that make twins; leave them out with --bulk and --train"
        )
    if gpus is not None and not train:
        raise click.UsageError("--gpus is for workers that train; give --train with it")
    given = [
        ("--gpus", gpus),
        ("--metrics-port", metrics_port),
        ("--metrics-host", metrics_host),
        ("--grace-s", grace_s),
        *(("--warm", one) for one in warm),
    ]
    options = [f"{name}={value}" for name, value in given if value is not None]
    # The workers package is a higher layer, so it is named here and not imported. It replaces this process; with -P,
    # so that a folder named "workers" in the current folder is not imported instead.
    module = "workers.trainings.main" if train else "workers.bulk.main" if bulk else "workers.main"
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *options])
