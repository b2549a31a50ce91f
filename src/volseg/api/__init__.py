"""The functions behind ``import volseg``: thin, typed, keyword-only, over paths or arrays.

Importing a module of this package loads no heavy library; calling one of its functions does.
"""
