"""The HTTP API: it reads model cards and the object store, sends work by task name, and never loads a network.

app            the app, put together from the parts below
services       what the endpoints work with, one of each per app
server, connections               uvicorn, with limits of connections and timeouts
request_headers  Host, Origin and headers that come twice: whom the API answers at all
auth, wrong_keys                  the check of API keys, before a body is read
own_jobs, own_runs, parameters    what endpoints get injected: the tenant's own jobs and runs, shared parameters
content_type, body_limit, bodies  bodies of the wrong kind, size or speed, refused before they are read; their memory
query          unknown query parameters are refused
slots          what a tenant may hold open
errors         every error as ``application/problem+json``
openapi, docs  the OpenAPI description, and the page that shows it
sse, watcher   progress as server-sent events
lookups        short reads of the store, off the event loop
metrics, log_redaction            Prometheus metrics; no secrets in logs
routes/        the endpoints, a file for each resource
schemas/       what they answer with
"""
