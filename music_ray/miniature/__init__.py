"""A small world in which every reply can be checked exactly, to test the paper's claim on a laptop.

It knows nothing of models, Ray or files of a run: it writes conversations, judges them and spoils them.
"""
