"""The progress of a job: counted, shown in a terminal or a log, and sent to trackers."""
