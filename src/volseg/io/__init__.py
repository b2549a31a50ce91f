"""The only place that touches storage."""
