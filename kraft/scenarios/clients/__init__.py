"""Clients of a scenario: each a process of the history, with connections of its own through links of its own."""
