"""Models in a worker's memory: found, loaded within a budget, and given a batch shape.

disk_cache    the models on local disk, within its budget
files         a model's folder on local disk, filled from the store
batch_shapes  batch shapes chosen by measurement, stored for each machine type
loaded_model  a loaded model, and what records say of how it runs
cache         the loaded models of a process, within its memory budget
"""
