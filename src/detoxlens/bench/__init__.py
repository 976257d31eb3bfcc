"""`detoxlens bench`: what this machine takes for the pipeline, and for attribution beside Inseq. Importing is cheap."""
