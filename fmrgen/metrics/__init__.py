"""What is measured: every metric once, the intervals of figures, and the cautions that go with them."""
