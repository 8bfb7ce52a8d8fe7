"""Callbacks: at a job's end a signed POST goes to the address that its request gave, again and again until it is taken.

    urls, addresses   where a callback may go        keyring, signing   who it is from
    message           what it says                   schedule           when it is tried again
    outbox            what the store keeps of it     posting            one attempt over HTTP
"""
