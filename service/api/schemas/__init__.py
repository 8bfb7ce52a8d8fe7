"""What the API answers with: pydantic models of jobs, runs, datasets and augmentation sets."""
