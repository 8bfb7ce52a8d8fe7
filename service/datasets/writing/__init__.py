"""Datasets out: items in, files out, one at a time.

    options       what is asked for: format, classes, splits, shards
    export        the one way through: items -> files
    preparing     an item as it is written: its classes, its split, its files' bytes
    formats       one writer a format: folders, coco, voc, cityscapes, yolo, huggingface, webdataset
    manifest      what is in the export, a line an item
    card          README.md: what made it, what it may be used for, and what not
    sinks         where files go: a folder, a zip, an object store

An export that can be cut and gone on with, into the object store:

    resumable     the run: from the last checkpoint to the last file
    place         where its files, its checkpoints and its result lie
    parts         the files of formats without shards, in zips of whole items
    state         what has been gathered, in a form that can be put away
    checkpoints   states, in the store
    sending       files on their way there while the next are made
    left_out      what is not in it, and why

The same items and options always give the same bytes: no clock, no random names, one order.
"""
