"""A judge: which of two conversations is better, asked in both orders, and what is kept of the answer.

What the two conversations are (the sides of a pair, what two models picked) is the caller's business;
this package knows an engine, a prompt and four verdicts, and no stage.
"""
