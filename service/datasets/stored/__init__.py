"""Datasets in the object store, written once and read one item at a time.

layout     the keys of a dataset's objects, and the entries of its index
writer     writing a dataset: tar shards, each with its index
dataset    reading one
scratch    temporary folders on this machine
"""
