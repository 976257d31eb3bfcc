"""A whole study by one command: its needs are fetched, the pipeline runs in its own checkout, numbers come back."""
