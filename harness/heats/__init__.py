"""Arms against each other: the measuring core (heat, arm, rounds), and sweeps of many of them.

Only one arm is ever active. May import all rooms before it, but nothing of ab.
"""
