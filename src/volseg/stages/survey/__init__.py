"""Survey: what a volume looks like before a network sees it, for all verbs that need to know."""
