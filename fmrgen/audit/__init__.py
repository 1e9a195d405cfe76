"""People's verdicts on the images of a split: which they see, the page they see them on, and what they say."""
