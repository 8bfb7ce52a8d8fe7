"""The model registry: versions of models with their cards and weights, bundled or in the object store.

catalogue   all model cards, by name and version
register    a model folder copied into the store as a new version
"""
