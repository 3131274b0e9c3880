"""ENGINE lease -> result. `work` tells the story of one job; checkout, environments, artifacts, caches, script, trace and masking are its chapters.

Sync on purpose: one thread works one job from begin to end (docs/decisions/0002). Blind to the other engines and to adapters.
"""
