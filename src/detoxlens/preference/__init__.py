"""Preference tuning: pairs of answers to one hater turn, and DPO or KTO on them."""
