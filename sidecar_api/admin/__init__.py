"""The admin plane: an app of its own on a port of its own. Nothing is open without a scope. Needs the extra `admin`."""
