"""Periodic tasks of every worker: ``garbage_collector`` removes objects, ``webhook_sender`` delivers webhooks."""
