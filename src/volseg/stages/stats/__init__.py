"""Stats: measure every object of a volume."""
