"""The plan: what a run will take in calls, tokens, GPU hours and money, before anything is started.

calls.py grows a rollout without a model and counts; the other modules give it lengths, numbers of seeds
and prices. Nothing here starts an engine, loads a tokenizer or knows how rollouts are really made.
"""
