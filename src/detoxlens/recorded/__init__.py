"""Scores and completions made elsewhere: read, replayed, calibrated."""
