"""The Celery options that all workers share."""

from __future__ import annotations

from typing import Any


def worker_options(threads: int) -> dict[str, Any]:
    """The options of an application that works on ``threads`` threads, each with one task at a time.

    Threads and never forks: a process that has loaded torch must not be copied.
    """
    return {
        "worker_pool": "threads",
        "worker_concurrency": threads,
        "worker_prefetch_multiplier": 1,
        # over Redis the count of prefetched messages drifts with late acknowledgement, and a worker keeps messages that
        # another one could take; from Celery 5.6 on it counts what it holds instead
        "worker_disable_prefetch": True,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # a task goes on while the broker is away: its record does not need one
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_max_retries": None,
        # a broker that refuses commands (its disk or memory is full, its replicas are away) is waited for like one that
        # is gone
        "broker_channel_error_retry": True,
    }
