"""Jobs: rows with an int64 id go through a pool of engine actors, and every one comes out exactly once.

What becomes of a row is the worker's business (generate: a rollout); this package knows Ray, shards
and failures, and nothing of conversations. job.py says what a job is made of, driver.py runs one.
"""
