"""Datasets in: a folder, or an archive unpacked to one, read item by item, with a report of what is wrong in it.

unpacking     zip and tar archives, unpacked without harm
opening       which format is it? -> a source of entries
sources       folders, coco, voc, cityscapes, yolo, huggingface, webdataset, twins: one module each
shards        tar shards, read without unpacking them
mask_files    masks as pictures -> class indices
class_lists   files that list classes
provenance    which items an export of ours marks as synthetic
checking      entries -> items: decoded, compared, counted
report        what was found
"""
