"""Evaluation: is the trained model better than the untrained one, and how sure is that?"""
