"""Components: the connected components of a volume of any size, for all verbs that need objects."""
