"""Best-of-N: reward models pick replies, conversations go on from these, and a judge compares what comes out.

    prompts ── conversations (a job: a row a prompt) ── questions ── verdicts (a job) ── results

Contenders of one prompt select from the same candidates for as long as their picks agree: a candidate is a
function of its history (tree.py).
"""
