"""Stages: one package per verb, the only orchestration."""
