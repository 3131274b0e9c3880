"""ENGINE result -> people: reads the reports that jobs leave. Blind to the other engines; formats come in through `wiring`."""
