"""A small model, trained on a job's scores, that answers what the list does not have, or abstains.

Answering needs numpy; fitting (`fit`, `threshold`) needs SciPy, too.
"""
