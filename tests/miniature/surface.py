"""The shortcuts of a replication, of pairs that stand in no file; those of one seed are one cluster."""

from music_ray.replicate import shortcuts


def auc(pairs, features):
    """How well features order unseen pairs: 0.5 is a coin."""
    sides = [(pair.chosen, pair.rejected) for pair in pairs]
    return shortcuts.auc(sides, features, [pair.seed for pair in pairs])
