"""What does the work: Celery tasks, the sampling engine, the pipeline from a denoised sample to stored files, the
trainer."""
