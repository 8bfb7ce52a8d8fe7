"""The endpoints, a file for each resource or part of one.

generate, uploads                 POST /generate, POST /uploads
jobs, job_events                  /jobs and /jobs/{job}, its events
samples, manifest, archive        what a job made
dataset_upload, datasets          POST /datasets; /datasets/{name}/{version}
augmentations, exports            sets of twins after a dataset; files to train from
run_events                        events of datasets, augmentation sets and exports
objects, twins                    signed links that the API serves itself
models, health                    model cards; health, metrics and problem types
callbacks                         the webhooks, for the OpenAPI description only
"""
