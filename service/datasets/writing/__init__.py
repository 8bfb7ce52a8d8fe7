"""Writing datasets: items in, files out, one at a time.

    options       the options of an export: format, classes, splits, shards
    export        the pipeline: items -> files
    prepare       an item ready to write: its classes, split, stem and encoded files
    base          the interface of a format's writer
    formats       the writers by format: folders, coco, voc, cityscapes, yolo, huggingface, webdataset
    mapping       classes selected, renamed and merged
    splitting     the draw of splits by source mask
    names         safe file names
    images        image files copied or encoded
    manifest      manifest.jsonl, one line per item
    card, about   README.md: the set's origin, licences, use and limits, and the information it needs
    skipped       the items that an export skipped, by reason
    sinks         destinations: a folder, an object store, a zip
    zip_parts     zips of whole items, for formats without shards
    state         the state of a writer, for checkpoints

:mod:`service.exports` writes resumable exports into the object store with these parts. The same items and options
always give the same bytes: no clock, no random names, one order.
"""
