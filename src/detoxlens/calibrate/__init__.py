"""How well one scorer stands in for another, e.g. for Perspective."""
