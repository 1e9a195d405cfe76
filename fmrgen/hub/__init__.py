"""How the Hub is asked: a client, its time-outs, and some files of a repo."""
