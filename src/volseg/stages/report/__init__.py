"""Report: one page about volumes and their objects, that needs no network."""
