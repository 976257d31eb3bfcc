"""One thin module per DVC stage: read records, call a library function, write records. None imports another."""
