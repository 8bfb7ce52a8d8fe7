"""Webhooks: at the end of a job or a run, a signed POST to the ``callback_url`` of its request, retried until accepted.

field, validate    the member ``callback_url`` of requests, and its validation
urls, addresses    the URLs and addresses that a webhook may be sent to
spec               the callback as a spec records it
secrets, signing   the signing keys, and the signature headers
delivery           one attempt over HTTP
backoff            when it is tried again
outbox             the store's record of pending webhooks and of attempts
"""
