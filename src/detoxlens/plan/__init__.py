"""`detoxlens plan`: what the current params will cost on this machine."""
