"""Truth against prediction. Pure functions over arrays."""
