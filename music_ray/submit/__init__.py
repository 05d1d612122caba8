"""Runs as jobs of a Ray cluster: submit, status, stop.

What `ray job submit --working-dir . -- python -m music_ray run …` does, with what can be known beforehand
checked here. It knows a run's configuration and its folder's manifest, not what any stage does.
"""
