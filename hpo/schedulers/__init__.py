"""Schedulers: who gets the next epochs."""
