"""Stages: one package per verb, the only orchestration.

Shared by several verbs, and none itself: `components`, what is connected; `survey`, what a volume
looks like; `levels`, which builds the coarser levels of whatever a verb writes.
"""
