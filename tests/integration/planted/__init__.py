"""Bugs planted into the nodes of real clusters. Nothing of it is in the product: see `sitecustomize.py`."""
