"""For tests, ours and those of adapter authors: builders of nouns, fakes of ports, and contract suites to subclass."""
