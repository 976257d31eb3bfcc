"""How cost grows: of `prepare`, `score` and `report` with prompts, of the models' work with tokens, width and depth."""
