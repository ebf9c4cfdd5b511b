"""Data folders that earlier versions have written, and what was in them: every later version starts on them.

`python -m tests.integration.written.make NAME` writes another one with the version that is checked out: do so before a
change of anything that is on disk, and name it by the commit. The folders hold no ports that a test relies on.
"""
