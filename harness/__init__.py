"""HOW it is measured, in rooms that may each import those before it, and bench.

telemetry: what the machine does; evidence: what work was done; timing: one process's steps; processes: how arms live;
preparation: what is found out before; heats: arms against each other; ab: two sides against each other.
record.py is what all of them leave behind, message.py what processes tell each other.
"""
