"""People's labels of completions, blinded: a sheet to fill in, and how the grader does against it."""
