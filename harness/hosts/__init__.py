"""Arms that span machines: one host leads and measures, others have joined it and lend their ranks.

May import processes and telemetry.
"""
