"""`music-ray replicate`: the paper's claim, tested in the miniature with the real stages.

Assembles what music_ray.miniature makes (a world, suites, data of every arm) with the stages of a run:
rollouts by vLLM, pairs, reward training, scores. See docs/explanation/miniature.md.
"""
