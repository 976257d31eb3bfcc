"""One thin module per DVC stage: read records, call a library function, write records. Stages never import each other."""
