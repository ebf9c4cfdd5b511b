"""Reports of a run: a page for a browser, a table for a terminal."""
