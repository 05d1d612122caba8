"""Scoring: conversations in, one number each out, at scale (`music-ray score`) or over HTTP (`serve`).

A finished reward model and a data set are all it needs; it knows nothing of the run that made the model.
"""
