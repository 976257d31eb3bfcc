"""Long work: unfinished work kept on disk, batches, shares, clusters, progress."""
