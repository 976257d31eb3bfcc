"""Language models and classifiers: loading, adapters, sampling, likelihood."""
