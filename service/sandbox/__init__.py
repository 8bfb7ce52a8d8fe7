"""Child processes with limits, for work on foreign data: what they read, and what it costs, is not ours to trust.

    limits        the limits of a child, and how the child sets them for itself
    seccomp       the system calls that a child may not make: no programs, no network
    launcher      the child's first steps: limits, then the work's own module
    frames        messages between parent and child: a line of JSON, and bytes
    channel       the child's side of the conversation
    process       the parent's side: start, watch, answer, kill
    store_gate    the object store as a child sees it, through its parent: a few calls on a few keys

A child has no secrets: its environment holds none, and it has no connection but that to its parent. The parent takes
its messages for foreign data too. The bulk worker imports datasets this way, and the API makes plans.
"""
