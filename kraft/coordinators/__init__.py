"""Coordinators: state that lives in a compacted topic, loaded by replay, decided by pure functions."""
