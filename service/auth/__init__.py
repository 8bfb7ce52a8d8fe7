"""Authentication: API keys, and the tenant that a request belongs to.

    api_key        an API key: the text that its holder has, and its record, which has only a hash
    key_store      the records of API keys in the object store: created, found, listed, revoked
    authenticate   from a request's Authorization header to its tenant, or a refusal
    rate_limit     requests a second for each tenant, by a token bucket in Redis
    bind_check     an API that others can reach must have a key

A tenant's jobs, runs and uploads are its own: for other tenants they do not exist. Models are shared by all tenants.
"""
