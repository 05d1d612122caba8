"""Memory that a model takes, from its configuration alone: sizes, the training's parts, what would fit.

The plan says it before anything is paid for, and the train stage refuses a start by it. Nothing here
loads a model, asks a GPU or knows the run folder.
"""
