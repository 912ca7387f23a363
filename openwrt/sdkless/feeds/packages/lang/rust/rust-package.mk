# Programs come ready built.
