"""Completions and scores made elsewhere: taken in, and published tables recomputed from them."""
