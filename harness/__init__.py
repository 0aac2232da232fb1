"""HOW it is measured: processes, clocks, telemetry, rounds and repetitions."""
