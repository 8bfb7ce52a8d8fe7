"""Callbacks: at the end of a job or a run a signed POST goes to the address that its request gave, again and again
until it is taken.

urls, addresses   where a callback may go        keyring, signing   who it is from
member, admission what a request says of it      message, subject   what it says, and of what
schedule          when it is tried again         posting            one attempt over HTTP
outbox            what the store keeps of it
"""
