"""The release plane, what a hospital runs: no config is evaluated, nothing is unpickled, nothing leaves unchecked."""
