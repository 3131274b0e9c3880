"""ENGINE push -> run. Reading order: compile (files to pipeline), plan (pipeline + event to run), settle (results to next states), why.

Everything here is pure but `compile` and `kept`, which read files through a port. Blind to the other engines and to adapters.
"""
