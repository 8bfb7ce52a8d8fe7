"""Who may ask, and for how much.

    api_keys   an API key: its text, which only its holder has, and its record, which only has a hash
    ring       the records in the object store: made, found, listed, revoked
    gate       from the Authorization header of a request to its tenant, or a refusal
    rates      requests a second, by a token bucket in Redis
    limits     what a tenant may have at once: queued samples and stored bytes
    listening  no key, no address but loopback

A tenant's jobs and uploads are its own: to everybody else they do not exist. Models are for all.
"""
