"""Where a worker runs: on this machine, on another one over ssh, or on an emulated processor.

A target is a way of starting ``python -m asterisk.bench.worker`` (a spec on stdin, one JSON line
back), of having files there, and of asking `asterisk.bench.machine` there.
"""
