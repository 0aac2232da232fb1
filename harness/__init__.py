"""HOW arms are measured, in packages that each may import bench and the packages before them.

telemetry: what the machine does; evidence: what work was done; timing: the steps of one process; processes: how arms
live; hosts: arms that span machines; prediction: what training will take; preparation: what is found out beforehand;
learning: complete trainings; heats: arms against each other; ab: two sides against each other. record.py is what all of
them leave behind, message.py what processes send each other.
"""
