"""Requests to the Hub: a client, its time-outs, and some files of a repo."""
