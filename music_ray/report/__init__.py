"""Reading a run: one self-contained HTML page, and pairs in the terminal.

Both read the run folder and nothing else; no other stage is imported.
"""
