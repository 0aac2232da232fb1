"""Arms that span machines: one host leads and measures, others join it and lend their ranks.

May import processes and telemetry.
"""
