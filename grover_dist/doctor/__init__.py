"""Is this machine, or every node of this cluster, fit for a run? Checks over plain data; `cluster/doctor.py` takes them to the nodes."""
