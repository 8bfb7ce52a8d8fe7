"""Reading datasets: a folder, or an archive unpacked to one, read item by item, with a report of its faults.

unpacking     zip and tar archives, unpacked safely; archive_bounds: their directories and headers
opening       format detection: a folder -> a source of entries
entry         the entries that a source yields, and its interface
coco, cityscapes, datumaro, folders, huggingface, twins, voc, webdataset, yolo    one source each
coco_files, datumaro_files, yolo_files    the files of these: which are read, and what they name
coco_shapes   polygons and run-length encodings -> pixels
folder_layouts    folders of images and masks; pairing: images with their masks; object_files: pictures of instances
unknown       what is in a folder of no known format
shards        tar shards, read without unpacking; parquet_rows: Parquet, a few rows at a time
split_lists   train.txt and so on
tree          the files of a dataset's folder; locating: files named by paths of another machine
image_files   image files decoded; orientation: upright, as EXIF data ask
instance_maps compared with their masks; instance_numbers: their files -> numbers
mask_samples  mask files -> samples; mask_encoding: how these stand for classes; mask_decoder: -> class indices
faults        what readers raise, named
painting      objects painted over one another -> class indices
class_lists   files that list classes
provenance    what an export's manifest records of its items: source, mask, metadata
about         the name and licence that a dataset states
checking      entries -> items: decoded, compared, counted
report        the faults found
"""
