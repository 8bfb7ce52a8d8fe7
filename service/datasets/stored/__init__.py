"""Datasets, jobs and augmentation sets as they lie in the object store, read one item at a time.

layout       where a dataset's objects lie, and what its index says of an item
keeping      writing a dataset: tar shards, an index beside each
dataset      reading one
twins        the twins of a job, or those of an augmentation set that were accepted, as items
scratch      folders on this machine for what passes through
"""
