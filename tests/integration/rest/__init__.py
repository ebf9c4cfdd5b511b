"""Each row of both REST dialects, asked of a real cluster; `python -m tests.integration.rest` prints a line each."""
