"""Embedded stack: all of Twinset on one machine, without root, docker or a separate server.

Modules: ``stack`` (broker, API and workers together), ``broker`` with ``valkey`` and ``tether`` (the Valkey server),
``children`` with ``lifeline`` (the Python processes).
"""
