"""Arms against each other: the measuring core (heat, arm, rounds), and sweeps of many arms.

Only one arm is ever active. May import all packages before it, but nothing of ab.
"""
