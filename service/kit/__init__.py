"""Small things that all rooms of the service share. Nothing here knows the store, the broker, or HTTP.

ids, run_kinds     ids of jobs and runs, which list newest first
states             the states of a job, and the legal changes between them
tenants            the form of a tenant's name
seeds              a job's seed and its samples' seeds
validation         faults of a request, and how values are shown in messages
frozen             the base of values that are stored as JSON
webhook_secrets    webhook secrets as text
setting_values     types of settings, with their checks
documents          JSON and YAML from outside, whose cost is known before it is spent
markdown, cells    text from outside in Markdown, and in the cells of tables
image_files        images from outside: allowed decoders, and a number of pixels
prefetch           many small reads, in order, several ahead
output_file        an export's file, in memory or on disk
tar, zip_stream    archives with reproducible bytes; a zip written as a stream
png                PNG files with reproducible bytes
contact_sheet      twins side by side as one image
"""
