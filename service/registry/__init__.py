"""The model registry: versions of models with their cards and weights, bundled or in the object store.

references         how models are named, and the keys that name them for any tenant
catalogue          the models that a tenant can use
entries, common_models, former_layout     what it lists: a tenant's models, those of all tenants
register           a card and its weights become a version
registration       the record of a version
versions           which versions are taken, and the next free one
weights            files by their hash, stored once
safetensors_header whether a file holds weights and nothing else
archive_writing, archive_reading, model_files   a model as one tar, out and in
aliases, shares    names for versions, and models for other tenants
tenant_models      what a tenant does with its models
uses, deletion     what needs a version, and what removes it
batch_shape        the batch shape of a model on a machine type
"""
