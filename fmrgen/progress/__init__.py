"""How far a job is: counted, shown as bars, in a terminal or in a log, and sent to trackers."""
