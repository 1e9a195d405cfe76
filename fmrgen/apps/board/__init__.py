"""A leaderboard as a site, from the splits and results of any number of repos and folders."""

NAMES: dict[str, str] = {}
