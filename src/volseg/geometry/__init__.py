"""Regions, blocks, tiles and pyramids: pure arithmetic."""
