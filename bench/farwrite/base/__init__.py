"""What every room may use: units, errors, files, numbers drawn and counted, this machine (host/) and the network (wire/)."""
