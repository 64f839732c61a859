"""The iSCSI door: a target whose disk is the replicated volume (RFC 7143, SPC-4, SBC-3). Initiators come in by `portal.py`."""
