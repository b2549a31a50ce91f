"""Stages: one file per verb, the only orchestration."""
