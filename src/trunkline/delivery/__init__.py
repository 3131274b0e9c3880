"""Release -> rollout -> back: what reaches people, step by step, watched, and taken back with a reason. Pure; server/deliveries.py acts."""
