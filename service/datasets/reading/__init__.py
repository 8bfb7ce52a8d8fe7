"""Reading datasets: a folder, or an archive unpacked to one, read item by item, with a report of its faults.

unpacking     zip and tar archives, unpacked safely
opening       format detection: a folder -> a source of entries
entry         the entries that a source yields, and its interface
coco, cityscapes, folders, huggingface, twins, voc, webdataset, yolo    one source each
shards        tar shards, read without unpacking
tree          the files of a dataset's folder
mask_files    mask images -> class indices
painting      objects painted over one another -> class indices
class_lists   files that list classes
provenance    what an export's manifest records of its items: source, mask, metadata
about         the name and licence that a dataset states
checking      entries -> items: decoded, compared, counted
report        the faults found
"""
